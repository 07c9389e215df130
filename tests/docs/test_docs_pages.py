"""What the pages say can be followed: links lead somewhere, every page is reached from the README, and commands that
are shown have these names and options. What the tutorial's commands do is `scripts/walk-tutorial`'s."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hotvirt.cli.main import hotvirt

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), ROOT / "examples" / "README.md"]
SHOWN = [
    *(page for page in PAGES if page.name not in ("cli.md", "CHANGELOG.md")),  # one is generated, one tells of the past
    *sorted(ROOT.glob("examples/*.yaml")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^(?: {4}|\t)(?=\S).*(?:\n(?: {4}|\t).*)*", re.MULTILINE)
CALL = re.compile(r"(?<![\w/.-])(?:hotvirt|kubectl virt) ((?:\\\n|[^\n`|;)#&])+)")


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Files that a page links to, each with the heading in it ("" for none)."""
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            file, _, heading = target.partition("#")
            yield ((page.parent / file).resolve() if file else page), heading


def headings(page: Path) -> set[str]:
    """As a browser's address has them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def calls(text: str) -> list[list[str]]:
    """Commands of ours in blocks of code and in backticks, each as its words. Prose is none, though it has our name."""
    code = [*BLOCK.findall(text), *re.findall(r"`([^`\n]+)`", text)]
    return [_words(call) for part in code for call in CALL.findall(part)]


def _words(call: str) -> list[str]:
    text = call.replace("\\\n", " ")
    try:
        return shlex.split(text, comments=True)
    except ValueError:  # a quote that ends beyond what belongs to the command
        return text.split()


def fault(words: list[str]) -> str:
    """Which of the words no command of ours knows; "" when all are known."""
    command: click.Command = hotvirt
    context = click.Context(hotvirt, info_name="hotvirt")
    for word in words:
        if word == "--":
            break
        if word.startswith("-"):
            known = {name for each in (*command.params, *hotvirt.params) for name in (*each.opts, *each.secondary_opts)}
            if word.partition("=")[0] not in known | {"-h", "--help"}:
                return f"{context.command_path} {' '.join(words)}: no option {word}"
        elif isinstance(command, click.Group):
            below = command.get_command(context, word)
            if below is None:
                return f"{context.command_path} {' '.join(words)}: no command {word}"
            command = below
        else:  # `vnc` has a command below it without being a group
            command = getattr(command, "commands", {}).get(word, command)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert [str(file) for file, _ in links(page) if not file.exists()] == []
    assert [(file.name, h) for file, h in links(page) if h and h not in headings(file)] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = {README}, [README]
    while ahead:
        new = {file for file, _ in links(ahead.pop()) if file.suffix == ".md"} - reached
        reached |= new
        ahead += new
    assert names([page for page in PAGES if page not in reached]) == []


@pytest.mark.parametrize("page", SHOWN, ids=names(SHOWN))
def test_commands_that_are_shown_have_these_names_and_options(page: Path) -> None:
    wrong = [told for words in calls(page.read_text()) if (told := fault(words))]
    assert [told for told in wrong if "no command install" not in told] == [], "`hotvirt install` is still to come"


def test_a_command_that_is_not_there_would_be_found() -> None:
    told = calls("Type `hotvirt sett vm/web`, or\n\n    hotvirt set vm/web --hurry && hotvirt images list  # all\n")
    assert told == [["set", "vm/web", "--hurry"], ["images", "list"], ["sett", "vm/web"]]
    assert [fault(words) for words in told] == [
        "hotvirt set vm/web --hurry: no option --hurry", "", "hotvirt sett vm/web: no command sett",
    ]  # fmt: skip
