"""The options that every command has: which API, and as whom; each changes what goes over the wire."""

import os
import sys

import pytest
import yaml
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from hotvirt.cli.connection import Timeout
from hotvirt.cli.errors import explain
from hotvirt.cli.main import hotvirt

START = "/apis/subresources.kubevirt.io/v1/namespaces/default/virtualmachines/web/start"


@pytest.fixture
def called(api, tmp_path, monkeypatch):
    """Calls `hotvirt WORDS` with a kubeconfig of two clusters and two users; (exit code, what it printed)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)  # whose home is below that; root's is the machine's
    monkeypatch.delenv("HOTVIRT_HOME", raising=False)
    config = {
        "clusters": [
            {"name": "here", "cluster": {"server": api.access.server}},
            {"name": "gone", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "me", "user": {"token": "mine"}},
                  {"name": "op", "user": {"token": "ops", "as": "ann", "as-groups": ["a", "b"], "as-uid": "7",
                                          "as-user-extra": {"example.com/why": ["x y"]}}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}},
                     {"name": "gone", "context": {"cluster": "gone", "user": "me"}}],
        "current-context": "here",
    }  # fmt: skip
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(file))
    api.answers["PUT", START] = {}

    def call(*words):
        result = CliRunner().invoke(hotvirt, words)
        said = result.output
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            said += explain(result.exception) or repr(result.exception)
        return result.exit_code, said

    return call


IMPERSONATED = {
    "Impersonate-User": ["ann"], "Impersonate-Group": ["a", "b"], "Impersonate-Uid": ["7"],
    "Impersonate-Extra-example.com%2Fwhy": ["x y"],
}  # fmt: skip
WAYS = {
    "the kubeconfig alone": ([], {"Authorization": ["Bearer mine"]}),
    "a token": (["--token=t1"], {"Authorization": ["Bearer t1"]}),
    "another user's word is the later one's": (["--user=op", "--token=t1"], {"Authorization": ["Bearer t1"],
                                                                             **IMPERSONATED}),
    "a user of the file": (["--user", "op"], {"Authorization": ["Bearer ops"], **IMPERSONATED}),
    "a cluster of the file": (["--context=gone", "--cluster=here"], {"Authorization": ["Bearer mine"]}),
    "an address": (["--context=gone", "-s", "{server}/"], {"Authorization": ["Bearer mine"]}),
    "somebody else": (["--as=bob", "--as-group=x", "--as-group=y", "--as-uid=3"],
                      {"Authorization": ["Bearer mine"], "Impersonate-User": ["bob"], "Impersonate-Group": ["x", "y"],
                       "Impersonate-Uid": ["3"]}),
    "somebody else than the file's": (["--user=op", "--as=bob"],
                                      {"Authorization": ["Bearer ops"], "Impersonate-User": ["bob"]}),
}  # fmt: skip


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("words", "headers"), WAYS.values(), ids=WAYS)
def test_who_asks_whom(called, api, words, headers, is_first):
    words = [word.format(server=api.access.server) for word in words]
    assert called(*([*words, "start", "web"] if is_first else ["start", "web", *words])) == (
        0, "VM web was scheduled to start\n"
    )  # fmt: skip
    found = {name: values for name, values in api.headers.items() if name.startswith(("Auth", "Impersonate"))}
    assert found == headers


def test_an_address_needs_no_kubeconfig(called, api, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert called("start", "web", f"--server={api.access.server}", "--token=t1")[0] == 0
    assert api.headers["Authorization"] == ["Bearer t1"]
    (tmp_path / "none").write_text("clusters: []\n")  # as it is after a home was taken down
    assert called("start", "web", f"--server={api.access.server}")[0] == 0
    assert "has no current context" in called("start", "web")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--as-group=x"], "name that with --as"),
        (["--as-uid=x"], "name that with --as"),
        (["--insecure-skip-tls-verify", "--certificate-authority={here}"], "exclude each other"),
        (["--client-certificate={here}"], "give both"),
        (["--certificate-authority=/none"], "/none"),
        (["--user=nobody"], "no user 'nobody'; it has: me, op"),
        (["--cluster=nowhere"], "no cluster 'nowhere'; it has: gone, here"),
        (["--request-timeout=soon"], "not a duration"),
    ],
)
def test_what_does_not_go_together(called, api, words, says):
    code, said = called("start", "web", *(word.format(here=__file__) for word in words))
    assert (code != 0, api.asked) == (True, [])
    assert says in said


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("5", 5.0), ("250ms", 0.25), ("1m30s", 90.0)])
def test_a_timeout_is_written_as_kubectls(text, seconds):
    assert Timeout().convert(text, None, None) == seconds


def test_an_export_is_not_waited_for_by_a_time_that_is_none(called, api):
    code, said = called("vmexport", "download", "web", "--output=x", "--readiness-timeout=soon")
    assert (code, api.asked) == (2, [])
    assert "not a duration" in said


def test_a_request_waits_as_long_as_it_is_told(called, silent):
    code, said = called("start", "web", f"--server={silent}", "--request-timeout=200ms")
    assert (code, "timed out" in said) == (1, True)


@pytest.fixture
def silent():
    """An address that takes a connection and says nothing."""
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_commands_own_option_of_that_name_is_its_own(called, api):
    code, said = called("--as=bob", "create", "vm", "--name=web", "--user=jane", "--cluster=here")
    assert code == 0
    assert "jane" in said
    assert api.asked == []
    assert "--user TEXT" in called("create", "vm", "--help")[1]


def test_a_tab_asks_as_whom_it_is_told_and_is_no_place_for_an_error(called, api):
    api.answers["GET", "/apis/kubevirt.io/v1/namespaces/default/virtualmachines"] = {
        "items": [{"metadata": {"name": "web"}}]
    }

    def completed(*words):
        return [item.value for item in ShellComplete(hotvirt, {}, "hotvirt", "_X").get_completions(list(words), "w")]

    assert completed("start", "--as=bob") == ["web"]
    assert api.headers["Impersonate-User"] == ["bob"]
    assert completed("start", "--as-group=x") == [], "whose --as is still to come"


def test_they_are_listed_where_virtctl_lists_them(called):
    code, said = called("options")
    assert code == 0
    assert all(flag in said for flag in ("--as-group", "--request-timeout", "-s, --server"))
    assert "--as-group" not in called("start", "--help")[1]


def test_ssh_passes_all_of_them_on(called, monkeypatch):
    became = []
    monkeypatch.setattr(os, "execvp", lambda _program, words: became.extend(words))
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    code, said = called("--as=bob", "ssh", "me@vm/web", "--as-group=x", "--as-group=y z", "--request-timeout=0",
                        "--insecure-skip-tls-verify=true", "-n", "prod")  # fmt: skip
    assert (code, said) == (0, "")
    assert became[2] == (
        f"ProxyCommand={sys.executable} -m hotvirt --insecure-skip-tls-verify --as=bob --as-group=x "
        "'--as-group=y z' --request-timeout=0 port-forward --stdio --wait vm/web/prod 22"
    )
