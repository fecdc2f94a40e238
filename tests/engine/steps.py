"""What the tests of the engine ask again and again."""

from datetime import datetime
from typing import Any

from sqlalchemy import select

from lifesign.clock import EpochMs, from_datetime
from lifesign.db.schema import notifications as outbox
from lifesign.engine.driver import Loop
from tests.harness import Json, Lifesign
from tests.peers.process import LedgerPeer, Record

NOON = "2026-01-05T12:00:00.000Z"
NOON_S = 1_767_614_400
"""NOON as the seconds of a `webhook-timestamp`."""


def hook(ledger: LedgerPeer, name: str = "ops") -> str:
    return f"{ledger.url}/hook/{name}"


def told(ledger: LedgerPeer, name: str = "ops") -> list[tuple[int, str]]:
    """What receiver `name` heard, in order: the node's time in seconds since noon, and the type."""
    return [(at_s(record), record.json["type"]) for record in ledger.requests(f"/hook/{name}")]


def at_s(record: Record) -> int:
    """When the node sent a webhook, by its own clock, in seconds since noon."""
    return int(record.headers["webhook-timestamp"]) - NOON_S


async def fire(lifesign: Lifesign, ref: str) -> None:
    """Make a heartbeat fire at this very moment, and let what follows at once happen."""
    await lifesign.check_in(ref, healthy=False)
    await lifesign.advance(0)


async def incidents(lifesign: Lifesign, slug: str) -> list[Json]:
    """The incidents of a heartbeat, newest first."""
    return await lifesign.incidents((await lifesign.get(slug))["id"])


async def notifications(lifesign: Lifesign, slug: str) -> list[Json]:
    """Every message about the newest incident of a heartbeat, oldest first."""
    rows: list[Json] = (await incidents(lifesign, slug))[0]["notifications"]
    return rows


async def row(lifesign: Lifesign, notification_id: str) -> Any:  # Any: a row of the outbox, asked by attribute
    """A row of the outbox as it is stored."""
    return await lifesign.node.db.read(
        lambda conn: conn.execute(select(outbox).where(outbox.c.id == notification_id)).one()
    )


def loop(lifesign: Lifesign, name: str) -> Loop:
    return next(each for each in lifesign.node.driver.loops if each.name == name)


def instant(text: str) -> EpochMs:
    return from_datetime(datetime.fromisoformat(text))
