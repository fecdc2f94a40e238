"""Processes that analyse: heavy work never holds up the loop, and a crash in it is not the server's.

Each process takes one job at a time, so that killing one that is stuck takes nothing else with it.
"""

import asyncio
import contextlib
import functools
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import ParamSpec, TypeVar

from lifesign.vitals.metrics import VITALS_JOB, VITALS_JOBS
from lifesign.vitals.rules import AnalysisDied, ServerBusy

P = ParamSpec("P")
T = TypeVar("T")

WAITING = 8
JOB_S = 60.0
START_S = 60.0
JOB_BYTES = 1 << 30
# What images may be, in pixels a side: OpenCV makes nothing of larger ones, whatever their headers said before.
_MAX_SIDE = 4096
# Two fifths of a core that the server wants, too, and all of one that it does not. On a machine that does much else,
# nicer ones would not be done within the seconds that a job may take.
_NICE = 2


@dataclass(slots=True)
class _Worker:
    pool: ProcessPoolExecutor
    pid: int = 0

    async def start(self) -> None:
        self.pid = await asyncio.get_running_loop().run_in_executor(self.pool, os.getpid)

    def kill(self) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.pool.shutdown(wait=False, cancel_futures=True)


class Workers:
    """At most `count` jobs at a time; `waiting` more may wait, each for as long as it takes."""

    def __init__(self, count: int, *, waiting: int = WAITING, job_s: float = JOB_S) -> None:
        self._free: asyncio.Queue[_Worker | None] = asyncio.Queue()
        for _ in range(count):
            self._free.put_nowait(None)
        self._count = count
        self._may_wait = waiting
        self._waiting = 0
        self._job_s = job_s

    @property
    def waiting(self) -> int:
        """How many jobs wait for a process."""
        return self._waiting

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `job` returns or raises, in another process. Raises ServerBusy, AnalysisDied."""
        outcome = "refused"
        try:
            answer = await self._run(functools.partial(job, *args, **kwargs))
            outcome = "done"
        except ServerBusy:
            outcome = "busy"
            raise
        except AnalysisDied:
            outcome = "died"
            raise
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        finally:
            VITALS_JOBS.labels(outcome).inc()
        return answer

    async def _run(self, job: Callable[[], T]) -> T:
        if self._free.empty() and self._waiting >= self._may_wait:
            raise ServerBusy
        self._waiting += 1
        try:
            worker = await self._free.get()
        finally:
            self._waiting -= 1
        try:
            if worker is None:
                worker = _Worker(ProcessPoolExecutor(1, get_context("spawn"), _limited))
                async with asyncio.timeout(START_S):
                    await worker.start()
            loop = asyncio.get_running_loop()
            began = loop.time()
            try:
                async with asyncio.timeout(self._job_s):
                    return await loop.run_in_executor(worker.pool, job)
            finally:
                VITALS_JOB.observe(loop.time() - began)
        except (TimeoutError, BrokenProcessPool, MemoryError) as error:
            self._end(worker)
            worker = None
            raise AnalysisDied from error
        except asyncio.CancelledError:
            # Nobody waits for it any more; it would hold up the next one.
            self._end(worker)
            worker = None
            raise
        finally:
            self._free.put_nowait(worker)

    def _end(self, worker: _Worker | None) -> None:
        if worker is not None:
            worker.kill()

    async def close(self) -> None:
        """End every process."""
        for _ in range(self._count):
            self._end(await self._free.get())


def _limited() -> None:
    """In a fresh process: leave the terminal's signals to the server, and take no more than a job may.

    That is one core, and memory; and check-ins come first: they take what they need of that core.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_server, name="vitals-end", daemon=True).start()
    os.nice(_NICE)
    # Read once, when these are loaded.
    os.environ |= {f"OPENCV_IO_MAX_IMAGE_{side}": str(_MAX_SIDE) for side in ("WIDTH", "HEIGHT")}
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    from lifesign.vitals import jobs  # noqa: PLC0415 - what it loads is not counted as the job's

    jobs.load()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + JOB_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _end_with_server() -> None:
    """Wait for the end of the server, however it came, and go too: nobody else would ever end this process."""
    server = parent_process()
    if server is not None:
        connection.wait([server.sentinel])
        os._exit(0)
