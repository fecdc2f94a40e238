import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import run as runs
from tests.run import Run


@pytest.fixture
def run() -> Iterator[Run]:
    begun = Run.begun()
    yield begun
    begun.end()


def test_what_many_need_at_once_is_made_by_one_of_them(run: Run) -> None:
    everybody = threading.Barrier(4)
    made: list[int] = []

    def make() -> str:
        made.append(len(made) + 1)
        # Long enough for the others to come too, if they could.
        threading.Event().wait(0.2)
        return f"number {made[-1]}"

    def ask(_: int) -> str:
        everybody.wait(10)
        return run.once("thing", make)

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(ask, range(4)))

    assert told == ["number 1"] * 4
    assert run.told("thing") == "number 1"


def test_what_could_not_be_made_is_tried_again(run: Run) -> None:
    def fail() -> str:
        raise OSError("not today")

    with pytest.raises(OSError, match="not today"):
        run.once("thing", fail)

    assert run.told("thing") is None
    assert run.once("thing", lambda: "here") == "here"


def test_a_run_that_has_ended_leaves_nothing(run: Run) -> None:
    run.once("thing", lambda: "here")

    run.end()

    assert not run.directory.exists()


def test_files_are_kept_in_memory_where_there_is_room_and_nobody_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(runs, "_MEMORY", tmp_path)
    monkeypatch.setattr(runs, "_ENOUGH_BYTES", 1)
    assert runs.memory() == tmp_path

    monkeypatch.setenv("TMPDIR", "/elsewhere")
    assert runs.memory() is None

    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(runs, "_ENOUGH_BYTES", 2**62)
    assert runs.memory() is None

    monkeypatch.setattr(runs, "_MEMORY", tmp_path / "nowhere")
    monkeypatch.setattr(runs, "_ENOUGH_BYTES", 1)
    assert runs.memory() is None
