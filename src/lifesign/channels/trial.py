"""A test message through a channel: sent once, at once, and what became of it."""

import asyncio
import random
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection

from lifesign.channels import attempts, claims, service
from lifesign.channels import config as configs
from lifesign.channels.attempts import Claimed, Finished
from lifesign.channels.delivery import Courier, LeaseLost
from lifesign.channels.limits import Limits
from lifesign.channels.message import Message
from lifesign.channels.sender import Outcome, Sent
from lifesign.clock import EpochMs
from lifesign.projects import service as projects


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the message to one address. outcome: None when the storage did not take it."""

    dest: str | None
    outcome: Outcome | None
    took_ms: int

    @property
    def fault(self) -> str | None:
        """`<code>: <why>`, whole; None when the provider accepted it."""
        if isinstance(self.outcome, Sent):
            return None
        if self.outcome is None:
            return "unavailable: the storage did not take it"
        return f"{self.outcome.code}: {self.outcome.why}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One test. wait_ms: nothing was sent, the provider's limit allows it after that time."""

    answers: tuple[Answer, ...]
    wait_ms: int | None = None


async def run(courier: Courier, project_id: str, channel_id: str, *, node_id: str, limits: Limits) -> Trial:
    """Send a test message to every address of a channel; if all take it the channel counts as working.

    Raises ChannelNotFound, TooManyTests.
    """
    claimed, wait_ms = await courier.db.write(
        _begin, project_id, channel_id, node_id=node_id, limits=limits, now=courier.clock.now()
    )
    if wait_ms is not None:
        return Trial((), wait_ms)
    answers = await asyncio.gather(*(_deliver(courier, each) for each in claimed))
    if all(each.fault is None for each in answers):
        await courier.db.write(service.mark_working, channel_id, courier.clock.now())
    return Trial(tuple(answers))


def _begin(
    conn: Connection, project_id: str, channel_id: str, *, node_id: str, limits: Limits, now: EpochMs
) -> tuple[list[Claimed], int | None]:
    """The claimed tests, or how many ms to wait until the provider's limit allows them."""
    channel = service.get_channel(conn, project_id, channel_id, lock=True)  # or parallel tests would all be the tenth
    addresses: list[str | None] = [*configs.addresses(channel.type, orjson.loads(channel.config))] or [None]
    attempts.admit_test(conn, channel.id, now)
    wait_ms = claims.spend(conn, channel, len(addresses), limits=limits, now=now)
    if wait_ms is not None:
        return [], wait_ms
    names = projects.names(conn, {project_id})
    message = Message(
        kind="test",
        title="Test message from Lifesign",
        text=f"This is a test of the channel {channel.name}. If you can read it, messages arrive.",
        project=names.get(project_id, ""),
        happened_at=now,
    )
    return attempts.begin_test(conn, channel, addresses, message, node_id=node_id, now=now), None


async def _deliver(courier: Courier, claimed: Claimed) -> Answer:
    started_at = courier.clock.now()
    try:
        outcome, took_ms = await courier.attempt(claimed)
    except LeaseLost:
        return Answer(claimed.notification.dest, None, 0)
    # The luck of a retry's delay does not matter here: a test is never retried.
    finished = Finished(claimed, outcome, started_at, took_ms, random.random())  # noqa: S311 - jitter, not a secret
    await courier.db.write(attempts.finish, finished, courier.clock.now())
    return Answer(claimed.notification.dest, outcome, took_ms)
