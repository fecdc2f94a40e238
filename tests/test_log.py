"""The log, where nobody takes it, and on a terminal."""

import io
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
import structlog

from lifesign import log


@pytest.fixture
def _unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard error is a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", buffering=1)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stream)
        log.configure("json", "info")
        yield
    log.configure("json", "error")
    with suppress(BrokenPipeError):
        stream.close()


@pytest.mark.usefixtures("_unread")
def test_a_log_that_nobody_reads_disturbs_nobody() -> None:
    for _ in range(3):
        structlog.get_logger("lifesign").info("something.happened", text="x" * 100_000)


def test_text_of_others_cannot_steer_the_terminal_that_shows_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stream)
        log.configure("text", "info")
        structlog.get_logger("lifesign").info(
            "request.handled", path="/\x1b[2J\x9b31m\u202egr\u00f6\u00dfe", status=404
        )
    log.configure("json", "error")

    told = stream.getvalue()
    assert "/\\x1b[2J\\x9b31m\\u202egröße" in told
    assert [each for each in ("\x1b[2J", "\x9b", "\u202e") if each in told] == []
    assert told.count("\n") == 1
