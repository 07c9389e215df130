"""The serial console through the whole way: command, API, node agent, QEMU, the guest's shell."""

import subprocess

import pytest

pytestmark = pytest.mark.guest

# The shell's echo of a line must not look like its answer.
ASK, ANSWER = "echo $((6 * 7))-it-is\n", "42-it-is"


def test_piped_commands_run_in_the_guest_and_their_output_comes_back(home):
    home.apply_vm("web")
    home.wait_agent("web")
    said = subprocess.run(
        [str(home.bin / "hotvirt"), "console", "vm/web", "--linger=10"],
        env=home.env, input=f"\n{ASK}", capture_output=True, text=True, timeout=home.patience,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert ANSWER in said.stdout

    # A second console takes the guest over; the first ends instead of sharing keys with it.
    with home.console("web") as first:
        first.type(f"\n{ASK}")
        first.read_until(ANSWER)
        with home.console("web") as second:
            second.type(f"\n{ASK}")
            second.read_until(ANSWER)
            assert first.ended() == 0
            second.type(ASK)
            second.read_until(ANSWER)
