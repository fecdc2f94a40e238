"""House rules that no ready-made linter checks, and proof that the clock rule, which one does, is in force."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import lifesign

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
# Put together here, so that this file does not break the rule it checks.
REGISTRIES = [".".join(parts) for parts in [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org")]]


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert _lines_with(r"(?<![\w/.])/(?:work|root|home|Users)/\w") == []


def test_no_file_names_the_host_of_a_package_registry() -> None:
    assert _lines_with("|".join(map(re.escape, REGISTRIES))) == []


def test_whatever_is_left_to_do_gives_the_link_of_its_issue() -> None:
    assert _lines_with(r"\b(?:TODO|FIXME|XXX)\b(?=[:(])(?!.*://)") == []


def test_every_silenced_warning_gives_its_reason() -> None:
    silenced = r"#\s*(?:noqa(?:: [A-Z0-9, ]+)?|type: ignore(?:\[[a-z, -]+\])?)\s*$"

    assert _lines_with(silenced, suffix=".py") == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in SOURCES if ast.get_docstring(ast.parse(path.read_text())) is None]

    assert SOURCES
    assert silent == []


@pytest.mark.parametrize(
    "reading",
    [
        "import time\n\nprint(time.time())\n",
        "from time import time_ns\n\nprint(time_ns())\n",
        "import datetime as dt\n\nprint(dt.datetime.now(dt.UTC))\n",
        "from datetime import datetime\n\nprint(datetime.utcnow())\n",
        "from datetime import date\n\nprint(date.today())\n",
    ],
)
def test_only_the_clock_may_read_a_clock(reading: str) -> None:
    assert "TID251" in _ruff(reading, "src/lifesign/heartbeats/rules.py")
    assert "TID251" in _ruff(reading, "tests/heartbeats/test_rules.py")
    assert "TID251" not in _ruff(reading, "src/lifesign/clock.py")


def test_no_statement_asks_the_database_for_the_time() -> None:
    asking = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.expr) and _asks_the_database_for_the_time(node)
    ]

    # The one place that may: how far is this machine's clock from the one that all nodes share?
    assert [each.partition(":")[0] for each in asking] == ["src/lifesign/db/offset.py"]


def test_every_dependency_has_an_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert {_package(requirement) for requirement in wanted} - {_package(pin) for pin in pins} == set()


def test_the_changelog_has_a_heading_for_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == "Unreleased"
    assert lifesign.__version__ in headings


def test_changelog_fragments_say_what_kind_of_change_they_tell() -> None:
    fragment = r"README\.md|[a-z0-9-]+\.(?:added|changed|fixed|removed)\.md"

    assert [path.name for path in (ROOT / "changelog.d").iterdir() if not re.fullmatch(fragment, path.name)] == []


def test_every_script_can_be_run() -> None:
    scripts = [ROOT / ".ci" / "run", *(ROOT / "tools").iterdir()]

    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []


def _tracked_texts() -> Iterator[tuple[Path, str]]:
    """Every text file that is, or is about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip(f"git does not list the files: {listed.stderr.strip()}")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        try:
            yield path.relative_to(ROOT), path.read_text()
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a picture, or a file that is about to go


def _lines_with(pattern: str, *, suffix: str = "") -> list[str]:
    texts = [(path, text) for path, text in _tracked_texts() if path.name.endswith(suffix)]
    assert texts, "there is nothing to look at"
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    ]


def _ruff(source: str, path: str) -> str:
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "--stdin-filename", path, "-"],
        input=source,
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.stderr == ""
    return checked.stdout


def _asks_the_database_for_the_time(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="func"), attr="now" | "current_timestamp" | "localtimestamp"):
            return True
        case ast.Constant(value=str(text)):
            return re.search(r"\bCURRENT_TIMESTAMP\b|\bclock_timestamp\(|\('now'", text) is not None
        case _:
            return False


def _package(requirement: str) -> str:
    """The name that a requirement or a pin starts with, as registries compare names."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()
