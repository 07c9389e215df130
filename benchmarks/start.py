"""What the start of a command costs, beside Python alone and Python with the libraries that each command needs.

    python benchmarks/start.py                    # 20 rounds, each program after the other

Printed is the least and the median of CPU and wall milliseconds, and the median's ratio to Python alone. Programs take
turns, so that a machine that gets slower does so for all.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

START = "from hotvirt.cli.main import main; main()"
PROGRAMS = {
    "python alone": ("pass",),
    "with click and msgspec": ("import click, msgspec",),
    "hotvirt --help": (START, "--help"),
    "hotvirt version --client": (START, "version", "--client"),
    "hotvirt start --help": (START, "start", "--help"),
}


def run(*words: str) -> tuple[float, float]:
    """CPU and wall seconds of one start."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", *words], capture_output=True, check=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name, words in PROGRAMS.items():
            took[name].append(run(*words))
    print(f"{'':26}{'CPU, ms':>16}{'wall, ms':>16}{'by Python':>12}")
    print(f"{'':26}{'least':>8}{'p50':>8}{'least':>8}{'p50':>8}{'CPU':>12}")
    floor = statistics.median(cpu for cpu, _ in took["python alone"])
    for name, each in took.items():
        cpus, walls = zip(*each, strict=True)
        numbers = (min(cpus), statistics.median(cpus), min(walls), statistics.median(walls))
        ratio = statistics.median(cpus) / floor
        print(f"{name:26}" + "".join(f"{number * 1000:8.0f}" for number in numbers) + f"{ratio:12.2f}")


if __name__ == "__main__":
    main()
