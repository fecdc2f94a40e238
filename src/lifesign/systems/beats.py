"""Beats: as hot as check-ins, which they are underneath. Many machines share each statement."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.heartbeats.checkins import CheckIn, CheckIns
from lifesign.systems import rules, store
from lifesign.systems.rules import StaleCredential
from lifesign.systems.store import Beating, Known


class Beat(NamedTuple):
    """One beat as it arrived. `stamp`: when its body had been read."""

    known: Known
    stamp: EpochMs


class Beats:
    """Records beats, many at once: `await db.write_batched(beats.record, beat)`."""

    def __init__(self, check_ins: CheckIns) -> None:
        self._check_ins = check_ins

    def record(self, conn: Connection, items: Sequence[Beat]) -> list[EpochMs | Exception]:
        """Record all of `items`; when the system reported last, or StaleCredential, for each, in order."""
        found = {each.id: each for each in store.lock_beating(conn, {item.known.id for item in items})}
        beaten: dict[str, Beating] = {}
        answers: list[EpochMs | Exception] = []
        check_ins: list[CheckIn] = []
        for item in items:
            before = found.get(item.known.id)
            if before is None or before.version != item.known.version:
                answers.append(StaleCredential())
                continue
            # A clock that steps back, or an older beat that comes late, moves nothing backwards.
            last = max(item.stamp, before.last_heartbeat or item.stamp)
            first = item.stamp if before.first_heartbeat is None else before.first_heartbeat
            found[before.id] = beaten[before.id] = Beating(before.id, before.version, first, last)
            answers.append(last)
            check_ins.append(_check_in(item))
        store.save_beats(conn, beaten.values())
        for outcome in self._check_ins.record(conn, check_ins) if check_ins else ():
            if isinstance(outcome, Exception):
                raise outcome
        return answers


def _check_in(beat: Beat) -> CheckIn:
    known = beat.known
    return CheckIn(
        project_id=known.project_id,
        key_id=known.id,
        ref=known.heartbeat_id,
        healthy=True,
        metadata=None,
        stamp=beat.stamp,
        via="system",
        owner=rules.owner(known.id),
    )
