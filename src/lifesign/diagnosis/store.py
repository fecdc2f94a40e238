"""SQL of diagnosis: packets, the ledger, decisions, alerts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson
from sqlalchemy import Connection, Row, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from lifesign.clock import EpochMs
from lifesign.db.schema import diagnosis_alerts, issue_decisions, issue_ledger, packets
from lifesign.diagnosis.findings import Level
from lifesign.diagnosis.ledger import Entry, LedgerState

P, L, D, A = packets.c, issue_ledger.c, issue_decisions.c, diagnosis_alerts.c

Decision = Literal["approved", "dismissed"]


@dataclass(frozen=True, slots=True)
class StoredPacket:
    """A packet as it is kept. head: JSON of it without issues. body: zlib-compressed JSON of it, to the byte."""

    id: str
    project_id: str
    created_at: EpochMs
    environment: str
    since: EpochMs
    until: EpochMs
    head: str
    body: bytes


class Place(NamedTuple):
    """The place of an entry in the ledger, which goes from what was seen last back."""

    last_seen: EpochMs
    fingerprint: str
    environment: str


class Decided(NamedTuple):
    """What a person said of an issue."""

    fingerprint: str
    decision: Decision
    person: str
    at: EpochMs


# Packets ------------------------------------------------------------------------------------------------------------
_PACKET = (P.id, P.project_id, P.created_at, P.environment, P.since, P.until, P.head, P.body)


def insert_packet(conn: Connection, packet: StoredPacket) -> None:
    """Keep a packet."""
    conn.execute(packets.insert().values({column.name: getattr(packet, column.name) for column in packets.c}))


def packets_by_ids(conn: Connection, project_id: str, packet_ids: Sequence[str]) -> dict[str, StoredPacket]:
    """These packets of a project, by id. Index: the primary key."""
    query = select(*_PACKET).where(P.id.in_(packet_ids), P.project_id == project_id)
    return {row.id: StoredPacket(*row) for row in conn.execute(query)}


def latest_packet(conn: Connection, project_id: str, until: EpochMs) -> StoredPacket | None:
    """The newest packet of a project that was made until an instant. Index: ix_packets_project."""
    query = select(*_PACKET).where(P.project_id == project_id, P.created_at <= until)
    row = conn.execute(query.order_by(P.id.desc()).limit(1)).first()
    return None if row is None else StoredPacket(*row)


def heads(conn: Connection, project_id: str, *, limit: int, before: str | None) -> list[tuple[str, str]]:
    """Packets of a project without issues, newest first: id and JSON. Index: ix_packets_project."""
    query = select(P.id, P.head).where(P.project_id == project_id)
    if before is not None:
        query = query.where(P.id < before)
    return [(row.id, row.head) for row in conn.execute(query.order_by(P.id.desc()).limit(limit))]


def delete_packets(conn: Connection, before: EpochMs, limit: int) -> int:
    """Packets made before an instant, the oldest first, with what people said of them. Index: ix_packets_created_at."""
    ids = list(conn.scalars(select(P.id).where(P.created_at < before).order_by(P.created_at).limit(limit)))
    if ids:
        conn.execute(delete(issue_decisions).where(D.packet_id.in_(ids)))
        conn.execute(delete(packets).where(P.id.in_(ids)))
    return len(ids)


# The ledger ---------------------------------------------------------------------------------------------------------
def entries(conn: Connection, project_id: str, environment: str, fingerprints: Iterable[str]) -> dict[str, Entry]:
    """What is known of these issues, by fingerprint. Index: the primary key."""
    mine = (L.project_id == project_id) & (L.environment == environment)
    found: dict[str, Entry] = {}
    wanted = list(fingerprints)
    for start in range(0, len(wanted), 1000):
        query = select(issue_ledger).where(mine, L.fingerprint.in_(wanted[start : start + 1000]))
        found |= {row.fingerprint: _entry(row) for row in conn.execute(query)}
    return found


def known_fingerprints(conn: Connection, project_id: str, environment: str, fingerprints: Sequence[str]) -> set[str]:
    """Those of these issues that the ledger knows."""
    return set(entries(conn, project_id, environment, fingerprints))


def list_entries(
    conn: Connection, project_id: str, *, state: LedgerState | None, limit: int, after: Place | None
) -> list[Entry]:
    """Entries of a project, the last seen first. Index: ix_issue_ledger_seen."""
    query = select(issue_ledger).where(L.project_id == project_id)
    if state is not None:
        query = query.where(L.state == state)
    if after is not None:
        is_behind = tuple_(L.fingerprint, L.environment) > (after.fingerprint, after.environment)
        query = query.where(L.last_seen <= after.last_seen, (L.last_seen < after.last_seen) | is_behind)
    ordered = query.order_by(L.last_seen.desc(), L.fingerprint, L.environment).limit(limit)
    return [_entry(row) for row in conn.execute(ordered)]


def save_entries(conn: Connection, project_id: str, changed: Iterable[Entry]) -> None:
    """Keep entries, new ones or changed ones. The caller holds the project's lock."""
    rows = [
        {
            "project_id": project_id,
            **{
                column.name: getattr(each, column.name) for column in L if column.name not in {"project_id", "versions"}
            },
            "versions": orjson.dumps(each.versions).decode(),
        }
        for each in changed
    ]
    if not rows:
        return
    insert = (sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert)(issue_ledger)
    keys = [column.name for column in issue_ledger.primary_key]
    values = {column.name: insert.excluded[column.name] for column in L if column.name not in keys}
    conn.execute(insert.on_conflict_do_update(index_elements=keys, set_=values), rows)


def _entry(row: Row[Any]) -> Entry:  # Any: a row of a table whose columns mypy does not know
    columns = dict(row._mapping)  # noqa: SLF001 - the public name of a row as a dict
    del columns["project_id"]
    return Entry(**columns | {"versions": tuple(orjson.loads(columns["versions"]))})


# Decisions ----------------------------------------------------------------------------------------------------------
def insert_decision(conn: Connection, project_id: str, packet_id: str, decided: Decided) -> None:
    """What a person said of an issue, after whatever was said before."""
    conn.execute(issue_decisions.insert().values(project_id=project_id, packet_id=packet_id, **decided._asdict()))


def decisions(conn: Connection, packet_id: str) -> dict[str, Decided]:
    """What was said last of each issue of a packet, by fingerprint. Index: ix_issue_decisions_packet."""
    query = select(D.fingerprint, D.decision, D.person, D.at).where(D.packet_id == packet_id).order_by(D.seq)
    return {row.fingerprint: Decided(*row) for row in conn.execute(query)}


# Alerts -------------------------------------------------------------------------------------------------------------
def alert(conn: Connection, project_id: str) -> tuple[str, Level] | None:
    """The managed heartbeat of a project, and the severity from which on it fails."""
    row = conn.execute(select(A.heartbeat_id, A.severity).where(A.project_id == project_id)).first()
    return None if row is None else (row.heartbeat_id, row.severity)


def insert_alert(conn: Connection, project_id: str, heartbeat_id: str, severity: Level) -> None:
    """Let a heartbeat fail from a severity on."""
    conn.execute(diagnosis_alerts.insert().values(project_id=project_id, heartbeat_id=heartbeat_id, severity=severity))


def set_alert_severity(conn: Connection, project_id: str, severity: Level) -> None:
    """Let the heartbeat that is there fail from another severity on."""
    conn.execute(diagnosis_alerts.update().where(A.project_id == project_id).values(severity=severity))


def delete_alert(conn: Connection, project_id: str) -> None:
    """Nothing fails any more."""
    conn.execute(delete(diagnosis_alerts).where(A.project_id == project_id))
