"""One page and its surroundings; each test changes what it is about."""

from typing import Any

from lifesign.channels.message import HeartbeatPart, IncidentPart, Message
from lifesign.channels.sender import HttpReply, HttpRequest, SendContext
from lifesign.clock import EpochMs
from lifesign.settings import Settings

NOTIFICATION = "ntf_0123456789abcdef0123456789abcdef"
INCIDENT = "inc_0123456789abcdef0123456789abcdef"
# 2026-03-08T07:00:00Z, the very moment New York went from 02:00 EST to 03:00 EDT.
DEADLINE = EpochMs(1_772_953_200_000)
OPENED = EpochMs(DEADLINE + 60_000)


class NoOutbound:
    """For what must not speak HTTP."""

    async def post(self, request: HttpRequest, **_options: Any) -> HttpReply:  # Any: never looked at
        raise AssertionError(f"a request to {request.url}")


def heartbeat(**changes: Any) -> HeartbeatPart:  # Any, here and below: fields of what is made
    fields: dict[str, Any] = {
        "id": "hb_1",
        "name": "Nightly Export",
        "slug": "nightly-export",
        "mode": "scheduled",
        "status": "firing",
        "timezone": "America/New_York",
    }
    return HeartbeatPart(**(fields | changes))


def incident(**changes: Any) -> IncidentPart:
    fields: dict[str, Any] = {"id": INCIDENT, "reason": "missed", "opened_at": OPENED, "deadline_at": DEADLINE}
    return IncidentPart(**(fields | changes))


def message(**changes: Any) -> Message:
    """A first page."""
    fields: dict[str, Any] = {
        "kind": "page",
        "title": "DOWN: Nightly Export",
        "text": "Nightly Export missed its check-in",
        "project": "default",
        "happened_at": OPENED,
        "heartbeat": heartbeat(),
        "incident": incident(),
        "step": 1,
        "steps": 3,
        "url": "https://lifesign.test/incidents/1",
        "ack_url": "https://lifesign.test/a/token",
    }
    return Message(**(fields | changes))


def probe() -> Message:
    """A test message: neither heartbeat nor incident."""
    return Message(
        kind="test", title="Test message from Lifesign", text="It works.", project="default", happened_at=OPENED
    )


def context(settings: Settings | None = None, **changes: Any) -> SendContext:
    """The first attempt, one second after the incident opened."""
    fields: dict[str, Any] = {
        "settings": settings or Settings(),
        "outbound": NoOutbound(),
        "notification_id": NOTIFICATION,
        "channel_id": "ch_1",
        "attempt": 1,
        "now": EpochMs(OPENED + 1000),
        "created_at": OPENED,
        "dest": "ops@example.com",
    }
    return SendContext(**(fields | changes))
