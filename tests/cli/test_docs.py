"""The reference of the command line has every command and every option, and its examples can be run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from lifesign.cli.app import app

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
SHARED = REFERENCE.partition("## What all commands share")[2].partition("\n## ")[0]
EXAMPLES = [line for block in re.findall(r"```sh\n(.*?)```", REFERENCE, re.DOTALL) for line in block.splitlines()]
TEMPLATES = Path(__file__).parents[2] / "src" / "lifesign" / "web" / "templates"

# Any, here and below: the classes of the parser have no public names.
ROOT: Any = typer.main.get_command(app)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by the words that call it."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


COMMANDS = dict(commands(ROOT))


def test_there_are_as_many_sections_as_commands() -> None:
    assert len(COMMANDS) == 97
    assert re.findall(r"^### lifesign (.+)$", REFERENCE, re.MULTILINE) == sorted(COMMANDS, key=_place)


def _place(words: str) -> int:
    return REFERENCE.index(f"### lifesign {words}\n")


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_every_option_stands_in_the_section_of_its_command(words: str) -> None:
    section = REFERENCE[_place(words) :].partition("\n##")[0]
    names = [name for parameter in COMMANDS[words].params for name in (*parameter.opts, *parameter.secondary_opts)]
    options = [name for name in names if name.startswith("-")]

    assert [name for name in options if f"`{name}`" not in section] == []
    assert f"lifesign {words}" in section.partition("```sh")[2].partition("```")[0]


def test_every_option_of_the_whole_stands_at_the_beginning() -> None:
    names = [name for parameter in ROOT.params for name in parameter.opts]

    assert names
    assert [name for name in [*names, "--help", "-h"] if name not in REFERENCE.partition("## Proof of life")[0]] == []
    assert [name for name in ("--url", "--key", "--json") if f"`{name}`" not in SHARED] == []


def test_every_variable_stands_in_the_reference() -> None:
    found = [each.envvar for command in COMMANDS.values() for each in command.params if each.envvar]
    variables = {name for each in found for name in ([each] if isinstance(each, str) else each)}

    assert len(variables) > 4
    assert [name for name in sorted(variables) if name not in REFERENCE] == []


@pytest.mark.parametrize("line", EXAMPLES)
def test_every_example_is_understood(line: str) -> None:
    words = shlex.split(line.rpartition("| ")[2] if line.startswith("pass ") else line)
    assert words.pop(0) == "lifesign"
    command = ROOT
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]

    command.make_context("lifesign", words)


def _shown() -> list[str]:
    """Every command that a page of the web interface tells people to give, its variables left out."""
    shown = "\n".join(each.read_text() for each in TEMPLATES.glob("*.j2"))
    lines = [line for block in re.findall(r"<pre[^>]*>(.*?)</pre>", shown, re.DOTALL) for line in block.splitlines()]
    found = [re.search(r"(?:^|[ =])(lifesign [a-z]+ .*)", line) for line in lines]
    # Whatever stands in a variable of the template is one word.
    return sorted({re.sub(r"{{.*?}}", "x", match[1]) for match in found if match})


@pytest.mark.parametrize("line", _shown())
def test_every_command_that_a_page_shows_is_understood(line: str) -> None:
    test_every_example_is_understood(line)


def test_pages_show_commands() -> None:
    assert 'lifesign maintenance create "Weekly reboot" --at "0 3 * * SUN" --duration 1h --all' in _shown()
    assert len(_shown()) > 8
