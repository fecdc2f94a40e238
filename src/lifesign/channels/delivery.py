"""One attempt over the network: between the claim and the finish, with no transaction open."""

import asyncio
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec
import structlog
from starlette.requests import Request

from lifesign.channels import attempts, rules, service
from lifesign.channels import message as messages
from lifesign.channels.acklinks import AckGrant
from lifesign.channels.attempts import Claimed
from lifesign.channels.config import addresses, secret_paths
from lifesign.channels.message import Message
from lifesign.channels.rules import ALARMS, SecretUnreadable
from lifesign.channels.sender import SEND_TIMEOUT_S, Outcome, Permanent, Retry, SendContext, Sent, Unknown
from lifesign.channels.senders import IS_IDEMPOTENT, IS_MACHINE, SENDERS
from lifesign.channels.service import Kit
from lifesign.channels.webhook import PREVIOUS_SECRET
from lifesign.clock import Clock
from lifesign.db import Database, StorageUnavailable
from lifesign.settings import Settings

log = structlog.get_logger("lifesign.channels")

# Senders end by themselves after 20 s and know what they have learned until then; this is for one that does not.
_SLACK_S = 2.0
# Fewer characters of a secret than this say nothing about it, and would be found in any text.
_SHORTEST_PART = 3


class LeaseLost(Exception):
    """Another node took the message over before the request was written."""


@dataclass(frozen=True, slots=True)
class Courier:
    """Carries claimed messages out. Holds what every attempt needs; keeps nothing between attempts."""

    settings: Settings
    clock: Clock
    db: Database
    kit: Kit

    async def attempt(self, claimed: Claimed) -> tuple[Outcome, int]:
        """Try once; the outcome and how long it took in ms. Never raises but for cancellation and LeaseLost."""
        began = asyncio.get_running_loop().time()
        outcome = await self._outcome(claimed)
        self.db.failpoints.hit("send.after_reply")
        took_ms = round((asyncio.get_running_loop().time() - began) * 1000)
        log.info(
            "notification.attempted",
            notification_id=claimed.notification.id,
            channel_id=claimed.channel.id,
            type=claimed.channel.type,
            attempt=claimed.notification.attempt,
            outcome=type(outcome).__name__.lower(),
            code=getattr(outcome, "code", None),
            took_ms=took_ms,
        )
        return outcome, took_ms

    async def _outcome(self, claimed: Claimed) -> Outcome:
        row, channel = claimed.notification, claimed.channel
        try:
            config = service.open_for_sending(self.kit, channel, self.clock.now())
        except SecretUnreadable:
            return Permanent("the channel's secret cannot be decrypted", "secret_unreadable", disable=True)
        context = SendContext(
            settings=self.settings,
            outbound=self.kit.outbound,
            notification_id=row.id,
            channel_id=channel.id,
            attempt=row.attempt,
            now=self.clock.now(),
            created_at=row.created_at,
            dest=_address_of(row.dest, addresses(channel.type, config)),
            maybe_sent=bool(row.maybe_sent),
            ack_token=self._ack_token(claimed),
            mark_called=None if IS_IDEMPOTENT[channel.type] else lambda: self._mark_called(claimed),
        )
        self.db.failpoints.hit("send.before_connect")
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S + _SLACK_S):
                outcome = await SENDERS[channel.type].send(self._as_sent(claimed, context), config, context)
        except TimeoutError:
            outcome = Unknown(f"no answer within {SEND_TIMEOUT_S:.0f} s")
        except (LeaseLost, StorageUnavailable):
            raise LeaseLost from None
        except Exception:  # noqa: BLE001 - logged below, without the secrets that a plain traceback may quote
            # A fault of ours must cost neither the loop nor the page: it is logged and tried again.
            trace = _without(
                traceback.format_exc(), [*_secrets_of(claimed, config), *_secrets_of_operator(self.settings)]
            )
            log.error("sender.failed", notification_id=row.id, type=channel.type, exception=trace)  # noqa: TRY400 - as above
            outcome = Retry("a fault of this server, see its log", "internal")
        return _redacted(outcome, [*_secrets_of(claimed, config), *_secrets_of_operator(self.settings)])

    def _ack_token(self, claimed: Claimed) -> str | None:
        row = claimed.notification
        if row.kind not in ALARMS or row.incident_id is None:
            return None
        return self.kit.acks.token(AckGrant(row.incident_id, claimed.channel.id))

    def _as_sent(self, claimed: Claimed, context: SendContext) -> Message:
        """The message with its links; people are told when it comes late, a program has the time."""
        row, public_url = claimed.notification, self.settings.public_url
        message = messages.decode(row.payload)
        if message.url is not None:
            url = None if public_url is None else f"{public_url}{message.url}"
            message = msgspec.structs.replace(message, url=url)
        if public_url is not None and context.ack_token is not None:
            message = msgspec.structs.replace(message, ack_url=f"{public_url}/a/{context.ack_token}")
        late = None if IS_MACHINE[claimed.channel.type] else rules.minutes_late(row.created_at, context.now)
        if late is None:
            return message
        return msgspec.structs.replace(message, title=f"[delayed {late} min] {message.title}")

    async def _mark_called(self, claimed: Claimed) -> None:
        row = claimed.notification
        if not await self.db.write(attempts.mark_called, row.id, row.lease_token, self.clock.now()):
            raise LeaseLost


def _address_of(dest: str | None, known: Sequence[str]) -> str | None:
    """Where a message goes; one that was queued before its channel changed its type has no address, or a mail's."""
    if dest is None or not known or ("@" in dest) != ("@" in known[0]):
        return next(iter(known), None)
    return dest


def courier_of(request: Request) -> Courier:
    """The courier of the node that serves `request`."""
    return cast("Courier", request.app.state.courier)


def _secrets_of(claimed: Claimed, config: dict[str, Any]) -> list[str]:  # Any: settings are JSON
    secrets = [config.get(PREVIOUS_SECRET)]
    for path in secret_paths(claimed.channel.type, config):
        first, _, rest = path.partition(".")
        secrets.append(config[first][rest] if rest else config[first])
    return [secret for secret in secrets if secret]


def _secrets_of_operator(settings: Settings) -> list[str]:
    """What the server itself logs in with at a gateway or mail server, which may echo it as well."""
    secrets = (settings.twilio_auth_token, settings.twilio_api_secret, settings.smtp_password)
    return [secret.get_secret_value() for secret in secrets if secret is not None]


def _redacted(outcome: Outcome, secrets: Iterable[str]) -> Outcome:
    """The outcome without any secret that the other side may have echoed."""
    if isinstance(outcome, Sent):
        return outcome
    return replace(outcome, why=_without(outcome.why, secrets))


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "****")
        # What the other side said was cut to a length, perhaps in the middle of a secret.
        for length in range(len(secret) - 1, _SHORTEST_PART, -1):
            if text.endswith(secret[:length]):
                text = f"{text[:-length]}****"
                break
    return text
