"""Beats: as hot as check-ins, which they are underneath. Many machines share each statement."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.db.patience import Patience
from lifesign.heartbeats.checkins import Answer, CheckIn, CheckIns
from lifesign.systems import rules, store
from lifesign.systems.rules import StaleCredential
from lifesign.systems.store import Known

_TIMEOUT_S = 10.0


class Beat(NamedTuple):
    """One beat as it arrived. `stamp`: when its body had been read."""

    known: Known
    stamp: EpochMs


class Beats:
    """Records beats, many at once: `await db.write_batched(beats.record, beat)`."""

    def __init__(self, check_ins: CheckIns) -> None:
        self._check_ins = check_ins
        self.patience = Patience(_TIMEOUT_S)
        """How long a machine is kept waiting for its answer."""

    def record(self, conn: Connection, items: Sequence[Beat]) -> list[EpochMs | Exception]:
        """Record all of `items`; when the system reported last, or StaleCredential, for each, in order."""
        found = {each.id: each for each in store.lock_beating(conn, {item.known.id for item in items})}
        answers: list[EpochMs | Exception] = [StaleCredential() for _ in items]
        taken: dict[int, CheckIn] = {}
        first: dict[str, EpochMs] = {}
        for place, item in enumerate(items):
            system = found.get(item.known.id)
            if system is None or system.version != item.known.version:
                continue
            taken[place] = _check_in(item)
            if system.first_heartbeat is None:
                first.setdefault(system.id, item.stamp)
        store.save_first_beats(conn, first)
        outcomes = self._check_ins.record(conn, list(taken.values())) if taken else []
        for place, outcome in zip(taken, outcomes, strict=True):
            answers[place] = _last(outcome)
        return answers


def _last(outcome: Answer | Exception) -> EpochMs:
    """When the system reported last. Raises what kept the check-in from counting, which nothing here should."""
    if isinstance(outcome, Exception):
        raise outcome
    if outcome.last_checkin_at is None:
        msg = "a heartbeat of a system was answered without being recorded"
        raise RuntimeError(msg)
    return outcome.last_checkin_at


def _check_in(beat: Beat) -> CheckIn:
    known, stamp = beat
    return CheckIn(
        known.project_id,
        known.id,
        known.heartbeat_id,
        healthy=True,
        metadata=None,
        stamp=stamp,
        via="system",
        owner=rules.owner(known.id),
    )
