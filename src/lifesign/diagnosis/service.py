"""Diagnoses and verifications: facts from the span store, the rules over them, packets and the ledger.

One of a project at a time in each process: they read much, and two at once would only make each other slow.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple
from weakref import WeakValueDictionary

import orjson
import structlog
from sqlalchemy import Connection

from lifesign.clock import SET_BACK_MS, Clock, EpochMs, rfc3339
from lifesign.db import Database
from lifesign.diagnosis import alerts, store
from lifesign.diagnosis.details import Details, Fetch
from lifesign.diagnosis.facts import Facts, Windows
from lifesign.diagnosis.issues import Issue, fingerprint_of
from lifesign.diagnosis.ledger import entered
from lifesign.diagnosis.packet import Examined, Json, examined, issues_in, packet_of
from lifesign.diagnosis.refusals import DiagnosisBusy, DiagnosisTimeout, IssueNotFound, PacketNotFound
from lifesign.diagnosis.store import Decided as Decided  # noqa: PLC0414 - what is decided here has this type
from lifesign.diagnosis.store import Decision as Decision  # noqa: PLC0414 - the same
from lifesign.diagnosis.store import StoredPacket as StoredPacket  # noqa: PLC0414 - the same
from lifesign.heartbeats.checkins import CheckIns
from lifesign.ids import new_id
from lifesign.projects import service as projects
from lifesign.projects.service import Project
from lifesign.settings import Settings
from lifesign.telemetry.store import SpanStore

log = structlog.get_logger("lifesign.diagnosis")

MINUTE_MS: Final = 60_000
_DAY_MS: Final = 24 * 60 * MINUTE_MS
WAIT_S: Final = 30
"""How long a diagnosis waits for the one before."""
LIMIT_S: Final = 60
"""How long a diagnosis may take."""

StillAsked = Callable[[], Awaitable[None]]
"""Raises when nobody waits for the answer any more."""

heads = store.heads
decisions = store.decisions
list_entries = store.list_entries
delete_packets = store.delete_packets


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants diagnosed. until: None for now. environment: None for any."""

    since_minutes: int
    until: EpochMs | None = None
    environment: str | None = None


class Seen(NamedTuple):
    """What the rules found in the windows, and what was fetched of it."""

    examined: Examined
    details: Details


class Diagnoses:
    """What every diagnosis of this process shares."""

    def __init__(
        self, settings: Settings, clock: Clock, db: Database, span_store: SpanStore, check_ins: CheckIns
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._db = db
        self._store = span_store
        self._check_ins = check_ins
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def diagnose(self, project_id: str, order: Order, still_asked: StillAsked) -> StoredPacket:
        """Diagnose a window and keep the packet.

        Raises DiagnosisBusy, DiagnosisTimeout, StoreUnavailable, StorageUnavailable, ProjectNotFound, and what
        `still_asked` does.
        """
        async with self.turn(project_id, still_asked):
            return await self._diagnose(project_id, order)

    @asynccontextmanager
    async def turn(self, project_id: str, still_asked: StillAsked) -> AsyncIterator[None]:
        """Nobody else diagnoses this project, for as long as it may take. Raises DiagnosisBusy, DiagnosisTimeout.

        still_asked: before it begins. Of those who left while they waited each would keep the others waiting.
        """
        lock = self._turns.setdefault(project_id, asyncio.Lock())
        try:
            async with asyncio.timeout(WAIT_S):
                await lock.acquire()
        except TimeoutError:
            raise DiagnosisBusy from None
        try:
            await still_asked()
            async with asyncio.timeout(LIMIT_S):
                yield
        except TimeoutError:
            raise DiagnosisTimeout from None
        finally:
            lock.release()

    def end_of(self, until: EpochMs | None) -> EpochMs:
        """Until when arrivals count: what arrived in this very millisecond, when nothing is said."""
        return EpochMs(self._clock.now() + 1) if until is None else until

    async def examine(self, project: Project, windows: Windows, judge: Callable[[Examined, Fetch], Details]) -> Seen:
        """What the rules say of two windows. judge: what to fetch of it, called in a thread beside the reader."""
        is_complete = self._is_complete(project, windows)

        def look(facts: Facts, fetch: Fetch) -> Seen:
            if not is_complete:
                facts = replace(facts, notices={**facts.notices, "baseline_incomplete": 1})
            seen = examined(facts)
            return Seen(seen, judge(seen, fetch))

        seen = await self._store.examine(project.id, windows, look)
        for number, error in seen.examined.failed.items():
            # Its words may hold what was stored, which no log shall see.
            log.error("rule.failed", project_id=project.id, rule=number, error=type(error).__name__)
        return seen

    def windows_of(
        self, current: tuple[EpochMs, EpochMs], baseline: tuple[EpochMs, EpochMs], environment: str | None
    ) -> Windows:
        """Two windows, and how much of them is read."""
        return Windows(current, baseline, environment, self._settings.diagnose_max_records)

    def _is_complete(self, project: Project, windows: Windows) -> bool:
        """Whether all that ever arrived in the baseline is there still."""
        # Of now, not of the window's end: what is past its time is gone, whichever window is asked for.
        kept_since = self._clock.now() - self._settings.telemetry_retention_days * _DAY_MS
        return windows.baseline[0] >= max(kept_since, project.created_at)

    async def _diagnose(self, project_id: str, order: Order) -> StoredPacket:
        began = self._clock.monotonic()
        project = await self._db.read(projects.project, project_id)
        until = self.end_of(order.until)
        length = order.since_minutes * MINUTE_MS
        since = EpochMs(until - length)
        windows = self.windows_of((since, until), (EpochMs(since - length), since), order.environment)
        seen, details = await self.examine(project, windows, lambda seen, fetch: fetch(seen.wanted))
        environment = order.environment or ""
        fingerprints = [fingerprint_of(each.finding.rule.signal_type, each.finding.parts) for each in seen.kept]
        ledger = await self._db.read(store.entries, project_id, environment, fingerprints)
        issues = await asyncio.to_thread(
            issues_in,
            seen,
            details,
            ledger={key: each.known for key, each in ledger.items()},
            window_start=since,
        )
        now = self._clock.now()
        told = packet_of(seen, issues, ready_min_count=self._settings.ready_min_count)
        packet: Json = {
            "packet_id": new_id("pkt", now),
            "tenant_id": project.tenant_id,
            "project_id": project_id,
            "source": "telemetry",
            "status": told["status"],
            "since_minutes": order.since_minutes,
            **told,
            "created_at": rfc3339(now),
            "environment": order.environment,
            "window": {"since": rfc3339(since), "until": rfc3339(until), "basis": "received_at"},
            "baseline": {
                "since": rfc3339(windows.baseline[0]),
                "until": rfc3339(windows.baseline[1]),
                "records": seen.facts.baseline.records,
                "complete": self._is_complete(project, windows),
            },
            "truncated": seen.facts.effective_since is not None,
            "effective_since": None if seen.facts.effective_since is None else rfc3339(seen.facts.effective_since),
            "took_ms": round((self._clock.monotonic() - began) * 1000),
        }
        kept = kept_of(packet, environment=environment, since=since, until=until, now=now)
        pages = order.until is None and order.environment is None
        check_ins = self._check_ins if pages else None
        await self._db.write(_keep, kept, issues[: len(packet["issues"])], packet["status"], check_ins)
        log.info(
            "packet.made",
            project_id=project_id,
            packet_id=kept.id,
            records=packet["telemetry_read"],
            issues=len(issues),
            took_ms=packet["took_ms"],
        )
        return kept


def kept_of(packet: Json, *, environment: str, since: EpochMs, until: EpochMs, now: EpochMs) -> StoredPacket:
    """A packet as it is kept."""
    head = {name: value for name, value in packet.items() if name != "issues"} | {"issue_count": len(packet["issues"])}
    return StoredPacket(
        id=packet["packet_id"],
        project_id=packet["project_id"],
        created_at=now,
        environment=environment,
        since=since,
        until=until,
        head=orjson.dumps(head).decode(),
        body=zlib.compress(orjson.dumps(packet)),
    )


def packet_bytes(packet: StoredPacket) -> bytes:
    """The JSON of a packet, the same bytes each time."""
    return zlib.decompress(packet.body)


def packet_json(packet: StoredPacket) -> Json:
    """A packet, parsed."""
    # Any: JSON that this slice has written.
    parsed: dict[str, Any] = orjson.loads(packet_bytes(packet))
    return parsed


def _keep(
    conn: Connection, packet: StoredPacket, issues: Sequence[Issue], status: str, check_ins: CheckIns | None
) -> None:
    """The packet, what it adds to the ledger, and whether it pages somebody. Raises ProjectNotFound."""
    lock_project(conn, packet.project_id)
    known = store.entries(conn, packet.project_id, packet.environment, [each.fingerprint for each in issues])
    changed = [
        entered(
            known.get(each.fingerprint),
            each,
            environment=packet.environment,
            packet_id=packet.id,
            now=packet.created_at,
        )
        for each in issues
    ]
    store.save_entries(conn, packet.project_id, changed)
    store.insert_packet(conn, packet)
    if check_ins is not None:
        alerts.check_in(conn, check_ins, packet, issues, is_ready=status != "observe_more")


def lock_project(conn: Connection, project_id: str) -> None:
    """One change of a project's ledger at a time, and none once it is deleted. Raises ProjectNotFound."""
    projects.lock(conn, project_id)
    projects.project(conn, project_id)


def latest_packet(conn: Connection, project_id: str, now: EpochMs) -> StoredPacket | None:
    """The newest packet of a project, of which none is from days to come, made before the clock was put back."""
    return store.latest_packet(conn, project_id, EpochMs(now + SET_BACK_MS))


def find_packet(conn: Connection, project_id: str, packet_id: str) -> StoredPacket:
    """The packet of a project with this id. Raises PacketNotFound."""
    found = store.packets_by_ids(conn, project_id, [packet_id]).get(packet_id)
    if found is None:
        raise PacketNotFound
    return found


def decide(conn: Connection, project_id: str, packet_id: str, decided: store.Decided) -> None:
    """Record what a person said of an issue of a packet. Changes nothing else. Raises PacketNotFound, IssueNotFound."""
    packet = find_packet(conn, project_id, packet_id)
    if all(each["fingerprint"] != decided.fingerprint for each in packet_json(packet)["issues"]):
        raise IssueNotFound
    store.insert_decision(conn, project_id, packet_id, decided)
