"""What every channel type has in common: the outcome of one attempt, and what a sender is given to make it.

A sender builds a request (pure), sends it once, and judges the answer (pure). It never retries, never sleeps, never
logs a secret, and holds no state: the outbox owns all of that.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from lifesign.channels.config import Config
from lifesign.channels.message import Message
from lifesign.clock import EpochMs
from lifesign.settings import Settings

CONNECT_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 20.0
MAX_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider accepted the message."""

    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Not accepted, and trying again may help. `after_ms`: the provider asked for at least this delay."""

    why: str
    code: str
    after_ms: int | None = None
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Permanent:
    """Never going to work. `disable`: the channel itself is at fault, not this message."""

    why: str
    code: str
    disable: bool = False
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request left, the answer did not come: it may have arrived."""

    why: str
    code: str = "no_reply"


Outcome = Sent | Retry | Permanent | Unknown


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One POST, complete: `headers` are the wire headers except those the client adds itself."""

    url: str
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A status line and headers that arrived whole. `headers` have lower-case names; `body` at most 64 KiB.

    is_whole: the body arrived to its end; otherwise only the status is worth judging.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool = True


class Outbound(Protocol):
    """The HTTP client of the process (`channels.outbound`): guarded, never redirected, bounded in time and size."""

    async def get(
        self, url: str, headers: Mapping[str, str], *, guarded: bool = True
    ) -> HttpReply | Retry | Permanent | Unknown:
        """Ask once, as `post` does."""
        ...

    async def post(
        self,
        request: HttpRequest,
        *,
        guarded: bool = True,
        on_write: Callable[[], Awaitable[None]] | None = None,
    ) -> HttpReply | Retry | Permanent | Unknown:
        """Send `request` once. Faults of the network come back as outcomes, never as exceptions.

        guarded: refuse inner addresses; False only for addresses that the operator set.
        on_write: awaited once, after the connection stands and before the first byte of the request is written.
        """
        ...


@dataclass(frozen=True, slots=True)
class SendContext:
    """Everything about this attempt that is not the message or the channel's settings."""

    settings: Settings
    outbound: Outbound
    notification_id: str
    channel_id: str
    attempt: int
    """1 for the first try."""
    now: EpochMs
    created_at: EpochMs
    """When the notification was enqueued."""
    dest: str | None = None
    """The one address of this notification (email, sms)."""
    maybe_sent: bool = False
    """An earlier attempt ended unknown: it may have arrived."""
    ack_token: str | None = None
    """Lets whoever has it acknowledge the incident; only of messages about an open one."""
    mark_called: Callable[[], Awaitable[None]] | None = None
    """Commits `called_at`; awaited right before the request is written, by types without idempotency."""


class Sender(Protocol):
    """One channel type."""

    async def send(self, message: Message, config: Config, context: SendContext) -> Outcome:
        """Try once, within 20 s in all. `config` has its secrets in clear."""
        ...
