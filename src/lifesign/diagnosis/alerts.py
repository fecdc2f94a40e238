"""A failing agent pages like a dead one: a managed heartbeat that a bad packet makes fail.

Off until a project asks for it. Spec "Diagnosis", section 6, "Paging".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from lifesign.auth.rules import Caller
from lifesign.clock import EpochMs
from lifesign.diagnosis import store
from lifesign.diagnosis.findings import Level
from lifesign.diagnosis.issues import LEVELS, Issue
from lifesign.diagnosis.store import StoredPacket
from lifesign.faults import invalid
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.checkins import CheckIn, CheckIns
from lifesign.heartbeats.definition import Definition
from lifesign.incidents import policies
from lifesign.incidents.rules import Tuning
from lifesign.projects import service as projects

OWNER: Final = "diagnosis"
INTERVAL_MS: Final = 315_360_000_000
"""Ten years: nobody waits for a diagnosis, it is what one says that counts."""
_GRACE_MS: Final = 60_000
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Alert:
    """Whom a bad packet pages. policy_id: None once the policy was deleted by force."""

    policy_id: str | None
    severity: Level


def alert_of(conn: Connection, project_id: str) -> Alert | None:
    """The alert of a project; None when it has none."""
    found = store.alert(conn, project_id)
    if found is None:
        return None
    heartbeat_id, severity = found
    return Alert(heartbeats.by_ids(conn, [heartbeat_id])[heartbeat_id].policy_id, severity)


def set_alert(
    conn: Connection, caller: Caller, wanted: Alert | None, *, tuning: Tuning, max_heartbeats: int, now: EpochMs
) -> None:
    """Set or remove (None) the alert of a project. Raises InvalidInput, HeartbeatLimitReached."""
    if wanted is not None and not policies.is_policy(conn, caller.project_id, wanted.policy_id or ""):
        raise invalid("diagnosisAlert.policy", "unknown policy")
    projects.lock(conn, caller.project_id)  # or two nodes at once would make a heartbeat each
    found = store.alert(conn, caller.project_id)
    if found is None:
        if wanted is not None:
            heartbeat_id = _made(conn, caller, wanted, max_heartbeats, now)
            store.insert_alert(conn, caller.project_id, heartbeat_id, wanted.severity)
    elif wanted is None:
        store.delete_alert(conn, caller.project_id)
        heartbeats.delete(conn, caller, found[0], now, tuning=tuning, owner=OWNER)
    else:
        store.set_alert_severity(conn, caller.project_id, wanted.severity)
        changes: dict[str, Any] = {"policy_id": wanted.policy_id}  # Any: fields of a definition
        heartbeats.edit(
            conn,
            caller,
            found[0],
            changes,
            check=lambda present, changed: replace(present, **changed),
            tuning=tuning,
            now=now,
            owner=OWNER,
        )


def _made(conn: Connection, caller: Caller, wanted: Alert, max_heartbeats: int, now: EpochMs) -> str:
    definition = Definition(
        name="Diagnosis",
        mode="recurring",
        slug=heartbeats.free_slug(conn, caller.project_id, "diagnosis"),
        interval_ms=INTERVAL_MS,
        grace_ms=_GRACE_MS,
        policy_id=wanted.policy_id,
        namespace="diagnosis",
        description="Fails when a diagnosis of this project's telemetry is ready and finds something bad enough.",
        # Or the next good packet would un-pause what somebody paused.
        is_sticky_pause=True,
    )
    return heartbeats.create(
        conn,
        caller,
        definition,
        is_armed=True,
        has_slug=True,
        max_heartbeats=max_heartbeats,
        now=now,
        managed_by=OWNER,
    ).id


def check_in(
    conn: Connection, check_ins: CheckIns, packet: StoredPacket, issues: Sequence[Issue], *, is_ready: bool
) -> None:
    """Let the alert of the project know what a packet says, in the packet's own transaction."""
    found = store.alert(conn, packet.project_id)
    if found is None:
        return
    heartbeat_id, severity = found
    bad = [each for each in issues if LEVELS.index(each.severity) <= LEVELS.index(severity)]
    told = {"packet_id": packet.id, "issues": [f"{each.severity}: {each.title}" for each in bad[:_SHOWN]]}
    item = CheckIn(
        packet.project_id,
        "",
        heartbeat_id,
        healthy=not (is_ready and bad),
        metadata=orjson.dumps(told).decode(),
        stamp=packet.created_at,
        via="diagnosis",
        owner=OWNER,
    )
    [outcome] = check_ins.record(conn, [item])
    if isinstance(outcome, Exception):
        raise outcome
