"""Who asks for something of bots, and about which bot or schedule of theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection

from lifesign.bots import store
from lifesign.bots.bodies import Fields
from lifesign.bots.records import Bot, Schedule
from lifesign.bots.rules import BotNotFound, ScheduleNotFound
from lifesign.bots.watching import Watchers
from lifesign.channels import service as channels
from lifesign.channels.secrets import SecretBox
from lifesign.channels.targets import GuardPolicy
from lifesign.clock import EpochMs

BOTS_SECRETS = "bots"


@dataclass(frozen=True, slots=True)
class Offers:
    """What the operator offers a project, by name: providers of models, and servers of tools with their labels."""

    providers: frozenset[str] = frozenset()
    mcp_labels: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ask:
    """Who asks, as far as definitions depend on it."""

    project_id: str
    key_id: str
    is_admin: bool
    watchers: Watchers
    guard: GuardPolicy
    box: SecretBox
    now: EpochMs
    offers: Offers = Offers()


def get_bot(conn: Connection, project_id: str, ref: str | int, *, lock: bool = False) -> Bot:
    """The bot with this id or number. Raises BotNotFound."""
    found = store.bot_by_ref(conn, project_id, ref, lock=lock)
    if found is None:
        raise BotNotFound
    return found


def get_schedule(conn: Connection, project_id: str, bot_ref: str | int, schedule_id: str) -> tuple[Bot, Schedule]:
    """A schedule and its bot. Raises BotNotFound, ScheduleNotFound."""
    bot = get_bot(conn, project_id, bot_ref)
    found = store.schedule_by_id(conn, bot.id, schedule_id)
    if found is None:
        raise ScheduleNotFound
    return bot, found


def require_channels(conn: Connection, ask: Ask, fields: Fields, name: str, ids: Sequence[str]) -> None:
    """Raise InvalidField for a channel that the project does not have."""
    known = channels.known_channels(conn, ask.project_id, ids)
    unknown = next((each for each in ids if each not in known), None)
    if unknown is not None:
        raise fields.refuse(name, f"unknown channel {unknown[:100]!r}")


def changed(options: Any, changes: Mapping[str, Any]) -> Any:  # Any: one of the structs of options
    """Options after changes."""
    return msgspec.structs.replace(options, **changes)
