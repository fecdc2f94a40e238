"""Takes spans in: bytes of a request become stored records. Spec "Telemetry", sections 2.7, 3.2 and 3.3.

What is decoded is decoded in two threads, and large requests piece by piece, so that a check-in waits for no request.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from lifesign.clock import Clock, EpochMs
from lifesign.db import Database, StorageUnavailable, is_writing
from lifesign.prices import InvalidPrices, Prices
from lifesign.projects import service as projects
from lifesign.settings import Settings
from lifesign.telemetry.budget import Budget, Lease
from lifesign.telemetry.inflate import Encoding, inflate, inflated_size
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.metrics import OTLP_COMMIT, OTLP_INFLIGHT, OTLP_SPANS
from lifesign.telemetry.otlp import Batch, Span, decode_json, decode_protobuf
from lifesign.telemetry.records import Record
from lifesign.telemetry.rules import QuotaExceeded, SlowAfter
from lifesign.telemetry.spare_memory import SpareMemory
from lifesign.telemetry.store import Appended, SpanStore

Form = Literal["json", "protobuf"]

COMMIT_S = 10.0
_DECODERS = 2
_LARGE_BYTES = 1024 * 1024
# Half a millisecond of work; and 5 ms of waiting at most, so that the way in is narrow, but never shut.
_RUN = 48
_PAUSE_S = 0.0005
_MOST_PAUSES = 10
_NS_PER_MS = 1_000_000
_QUOTA_MS = 5000
_MOST_QUOTAS = 10_000


@dataclass(frozen=True, slots=True)
class Body:
    """What a request holds: bytes as they came."""

    content: bytes
    form: Form
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the spans of a request. message: which were left out and why; empty when none was."""

    accepted: int
    rejected: int
    message: str


@dataclass(slots=True)
class _Decoded:
    batch: Batch
    records: list[Record]
    received_at: EpochMs


class Receiver:
    """The way in of one node. Closed before the store, which it finishes writing to."""

    def __init__(self, settings: Settings, clock: Clock, db: Database, store: SpanStore) -> None:
        self._clock = clock
        self._db = db
        self._store = store
        self._slow_after = SlowAfter(
            tool_ms=settings.slow_ms_tool,
            llm_ms=settings.slow_ms_llm,
            http_ms=settings.slow_ms_http,
            agent_ms=settings.slow_ms_agent,
            other_ms=settings.slow_ms_other,
        )
        self.prices = prices_of(settings)
        self._most_bytes = settings.otlp_max_body_bytes
        self._threads = ThreadPoolExecutor(_DECODERS, thread_name_prefix="lifesign-otlp")
        self._quotas: dict[str, tuple[int, EpochMs]] = {}
        self._appending: set[asyncio.Task[Appended]] = set()
        self.budget = Budget(settings.otlp_inflight_bytes, clock, gauge=OTLP_INFLIGHT)
        self.turns = Budget(1, clock)
        """Of decoding large requests."""
        self.spare_memory = SpareMemory(first=store.spare_memory)

    async def receive(self, project_id: str, body: Body, lease: Lease) -> Taken:
        """Store the spans of a request, all that are new or none, and return once they are on disk.

        lease: holds room for `body`; it is ended here, as late as the store lets go of the records. Raises Overloaded,
        InflatesTooFar, InvalidEncoding, InvalidOtlp, QuotaExceeded, StorageUnavailable, looked for in this order.
        """
        loop = asyncio.get_running_loop()
        if body.encoding != "identity":
            # Inflated twice, and kept once there is room for it: that costs a hundredth of what decoding does.
            size = await loop.run_in_executor(
                self._threads, inflated_size, body.content, body.encoding, self._most_bytes
            )
            await lease.grow_to(size)
        async with self._turn(lease.size):
            decoded = await loop.run_in_executor(self._threads, self._decoded, body)
        # What waits for the store has no need of it any more.
        del body
        return await self._stored(project_id, decoded, lease)

    async def take(self, project_id: str, spans: Sequence[Span]) -> Appended:
        """Store spans that were made inside the server. What the quota does not hold is left out and counted.

        Raises StorageUnavailable, ProjectNotFound.
        """
        now = self._clock.now()
        records = records_of(spans, now, slow_after=self._slow_after, prices=self.prices)
        return await self._appended(project_id, records, now)

    async def close(self) -> None:
        """Finish what is being stored and end the threads."""
        await self.spare_memory.close()
        if self._appending:
            await asyncio.wait(self._appending)
        await asyncio.to_thread(self._threads.shutdown)

    @asynccontextmanager
    async def _turn(self, size: int) -> AsyncIterator[None]:
        """Large ones one after the other: a thread is always left for those that are small, which most are.

        Waits as long as for room. Raises Overloaded.
        """
        if size <= _LARGE_BYTES:
            yield
            return
        await self.turns.take(1, has_begun=False)
        try:
            yield
        finally:
            self.turns.give_back(1)

    def _decoded(self, body: Body) -> _Decoded:
        """The records in a body. Runs in a thread."""
        # Here and not earlier: whoever waited long must not come to lie behind what readers have seen already.
        received_at = self._clock.now()
        content = inflate(body.content, body.encoding, self._most_bytes)
        decode = decode_protobuf if body.form == "protobuf" else decode_json
        batch = decode(content, arrival_ns=received_at * _NS_PER_MS, give_way=self._give_way)
        records = records_of(self._slowly(batch.spans), received_at, slow_after=self._slow_after, prices=self.prices)
        batch.spans.clear()
        return _Decoded(batch, records, received_at)

    def _slowly(self, spans: Sequence[Span]) -> Iterator[Span]:
        """The same spans; whoever works on them gives way to others again and again."""
        for start in range(0, len(spans), _RUN):
            yield from spans[start : start + _RUN]
            self._give_way()

    @staticmethod
    def _give_way() -> None:
        """Let whoever writes to a database finish first, check-ins above all."""
        for _ in range(_MOST_PAUSES):
            if not is_writing():
                return
            time.sleep(_PAUSE_S)

    async def _stored(self, project_id: str, decoded: _Decoded, lease: Lease) -> Taken:
        batch, records, now = decoded.batch, decoded.records, decoded.received_at
        OTLP_SPANS.labels("invalid").inc(batch.rejected.total())
        appended = await self._appended(project_id, records, now, lease) if records else Appended()
        if appended.over_quota:
            if not appended.new:
                raise QuotaExceeded(now)
            # The last of them were left out; which those are is plain where none was there before.
            first = "" if appended.duplicate else records[-appended.over_quota].body.name
            if not batch.rejected:
                batch.first_rejected = first
            batch.rejected["over quota"] += appended.over_quota
        return Taken(appended.accepted, batch.rejected.total(), batch.message)

    async def _appended(
        self, project_id: str, records: Sequence[Record], now: EpochMs, lease: Lease | None = None
    ) -> Appended:
        quota = await self._quota_of(project_id, now)
        began = self._clock.monotonic()
        task = asyncio.create_task(self._store.append(project_id, records, quota=quota, now=now))
        self._appending.add(task)
        # Whoever waits for this may give up, and the records are still in hand.
        task.add_done_callback(self._appending.discard)
        task.add_done_callback(_noticed)
        if lease is not None:
            lease.keep()
            is_large = lease.size > _LARGE_BYTES

            def end(_: asyncio.Task[Appended]) -> None:
                lease.end(is_last=True)
                if is_large:
                    self.spare_memory.was_used()

            task.add_done_callback(end)
        done, _ = await asyncio.wait({task}, timeout=COMMIT_S)
        if not done:
            raise StorageUnavailable(f"not stored within {COMMIT_S:g} s")
        appended = task.result()
        OTLP_COMMIT.observe(self._clock.monotonic() - began)
        for result in ("new", "duplicate", "over_quota"):
            OTLP_SPANS.labels(result).inc(getattr(appended, result))
        return appended

    async def _quota_of(self, project_id: str, now: EpochMs) -> int:
        """Records a month that the project may have stored, 0 for any number. Raises ProjectNotFound."""
        quota, read_at = self._quotas.get(project_id, (0, None))
        if read_at is not None and 0 <= now - read_at < _QUOTA_MS:
            return quota
        project = await self._db.read(projects.project, project_id)
        if len(self._quotas) >= _MOST_QUOTAS:
            self._quotas.clear()
        self._quotas[project_id] = (project.quota_spans, now)
        return project.quota_spans


def _noticed(task: asyncio.Task[Appended]) -> None:
    """Look at how it ended: asyncio would complain where nobody did, because everybody had given up."""
    if not task.cancelled():
        task.exception()


def prices_of(settings: Settings) -> Prices:
    """What knows prices, by these settings. Raises ValueError, which names the variable."""
    if settings.prices_file is None:
        return Prices()
    try:
        return Prices.from_file(settings.prices_file)
    except InvalidPrices as error:
        raise ValueError(f"LIFESIGN_PRICES_FILE: {error}") from error
