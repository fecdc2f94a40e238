"""The text of `/openapi.json`, worked out by another process where there is a server to keep small.

Working it out makes the framework resolve every route: for 2 s nothing else is answered, and 16 MiB are never given
back. What it comes to is half a megabyte, the same as long as the server runs.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
import structlog

log = structlog.get_logger("lifesign.http")

_TAKES_S: Final = 120.0
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG")


class Description:
    """What this server answers to whoever asks what it can do."""

    def __init__(self, describe: Callable[[], dict[str, Any]], apart: Sequence[str] = ()) -> None:
        """describe: works it out here. apart: arguments of a Python that writes it to its output; empty: here."""
        self._describe = describe
        self._apart = apart
        self._text: bytes | None = None
        self._working: asyncio.Task[bytes] | None = None

    async def text(self) -> bytes:
        """The description; worked out once, however many ask meanwhile."""
        if self._text is not None:
            return self._text
        if self._working is None:
            self._working = asyncio.create_task(self._work(), name="description")
        # Whoever hangs up ends nothing for the others.
        return await asyncio.shield(self._working)

    async def close(self) -> None:
        """End what is under way."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> bytes:
        try:
            self._text = await self._elsewhere() or written(self._describe())
            return self._text
        finally:
            self._working = None

    async def _elsewhere(self) -> bytes | None:
        """What another process writes; None when it does not."""
        if not self._apart:
            return None
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                *self._apart,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            )
        except OSError as error:
            log.warning("description.made_here", reason=str(error))
            return None
        try:
            async with asyncio.timeout(_TAKES_S):
                text, _ = await process.communicate()
        except TimeoutError:
            text = b""
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode or not text:
            log.warning("description.made_here", reason=f"exit code {process.returncode}")
            return None
        return text


def written(described: dict[str, Any]) -> bytes:
    """A description as it is sent."""
    return orjson.dumps(described)
