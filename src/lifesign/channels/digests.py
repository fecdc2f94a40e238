"""Digests: many messages of one kind to one address become one. Pure."""

from collections.abc import Sequence

from lifesign.channels.message import ItemPart, Message
from lifesign.channels.rules import MAX_ITEMS
from lifesign.clock import EpochMs, rfc3339

_STATES = {"resolve": "back", "fallback": "unattended", "reminder": "unattended"}


def digest(folded: Sequence[Message], now: EpochMs) -> Message:
    """One message in the place of several of one kind, alarms or closing ones, of one project; each incident once.

    Lists the first 20 in the order in which they went down, or came back.
    """
    items = sorted({item.incident_id: item for item in map(_item, folded)}.values(), key=lambda item: item.at)
    subject = "1 heartbeat is" if len(items) == 1 else f"{len(items)} heartbeats are"
    title = f"{subject} {_STATES.get(folded[0].kind, 'down')}"
    lines = [f"- {item.name}, since {rfc3339(item.at)}" for item in items[:MAX_ITEMS]]
    rest = len(items) - len(lines)
    if rest:
        lines.append(f"and {rest} more")
    return Message(
        kind="digest",
        title=title,
        text="\n".join(lines),
        project=folded[0].project,
        happened_at=now,
        items=tuple(items[:MAX_ITEMS]),
        total=len(items),
        url="/incidents",
    )


def _item(message: Message) -> ItemPart:
    heartbeat, incident = message.heartbeat, message.incident
    name = "?" if heartbeat is None else heartbeat.name
    if incident is None:
        return ItemPart(name, "", message.happened_at)
    at = incident.opened_at if message.kind != "resolve" else incident.resolved_at or message.happened_at
    return ItemPart(name, incident.id, at)
