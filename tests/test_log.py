"""The log, where nobody takes it."""

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
