"""Webhooks, signed as Standard Webhooks says: the channel type for machines.

The body is made from the stored message alone, so it is byte-for-byte the same on every retry; only the timestamp of
the attempt and with it the signature change. The receiver tells repeats apart by `webhook-id`, the notification's id.
"""

import base64
import hashlib
import hmac
from typing import Any

import msgspec

from lifesign.channels.config import Config
from lifesign.channels.message import HeartbeatPart, IncidentPart, Message, NoticePart
from lifesign.channels.outbound import clean_text, judge_common
from lifesign.channels.sender import HttpReply, HttpRequest, Outcome, Permanent, Retry, SendContext, Sent
from lifesign.clock import EpochMs, rfc3339

MAX_BODY_BYTES = 20_000
MAX_CUT_MESSAGE = 1000
PREVIOUS_SECRET = "previousSecret"  # noqa: S105 - the name of a config key
_MAX_PROVIDER_ID = 200


def build(message: Message, config: Config, context: SendContext) -> HttpRequest:
    """The signed request of this attempt.

    config: `url`, `secret`, optional `headers`, and `previousSecret` while an older secret still signs as well.
    """
    content = body(message, context.channel_id)
    seconds = str(context.now // 1000)
    secrets = [config["secret"], *([config[PREVIOUS_SECRET]] if config.get(PREVIOUS_SECRET) else [])]
    ours = {
        "content-type": "application/json",
        "webhook-id": context.notification_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(
            signature(secret, context.notification_id, seconds, content=content) for secret in secrets
        ),
    }
    # Names compare without case: a user's `Webhook-Id` beside ours would be two headers, and the receiver's choice.
    theirs = {name: value for name, value in config.get("headers", {}).items() if name.lower() not in ours}
    return HttpRequest(url=config["url"], headers=theirs | ours, content=content)


def signature(secret: str, message_id: str, seconds: str, *, content: bytes) -> str:
    """`v1,<base64>`: one signature. Source: Standard Webhooks 1.0, "Signature scheme"."""
    # Padding in excess is ignored when decoding, so both padded and bare secrets are read.
    key = base64.b64decode(secret.removeprefix("whsec_") + "==")
    signed = hmac.digest(key, f"{message_id}.{seconds}.".encode() + content, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def body(message: Message, channel_id: str) -> bytes:
    """The JSON of a message: at most 20 KB, without the metadata and with a cut text where it would be more."""
    content = _encoded(message, channel_id, message.text, has_metadata=True)
    if len(content) > MAX_BODY_BYTES:
        content = _encoded(message, channel_id, message.text, has_metadata=False)
    if len(content) > MAX_BODY_BYTES and len(message.text) > MAX_CUT_MESSAGE:
        content = _encoded(message, channel_id, message.text[: MAX_CUT_MESSAGE - 3] + "...", has_metadata=False)
    return content


def event_type(message: Message) -> str:
    """What the receiver switches on."""
    if message.kind == "test":
        return "channel.test"
    if message.kind == "page":
        if message.is_first:
            return "incident.opened"
        return "incident.repeated" if message.repeat else "incident.escalated"
    if message.notice is not None:
        return "bot.notice"
    if message.broken is not None:
        return "channel.broken"
    if message.flap is not None:
        return "heartbeat.flapping" if message.kind == "flap" else "heartbeat.flapping_ended"
    if message.kind in {"fallback", "reminder"}:
        return "incident.unattended"
    match message.incident.resolution if message.incident else None:
        case "ack":
            return "incident.acknowledged"
        case "pause" | "delete":
            return "incident.closed"
        case _:
            return "incident.resolved"


def judge(reply: HttpReply, now: EpochMs) -> Outcome:
    """What an answer means.

    A status that is not named in the specification is retried: a receiver being deployed must not cost a page.
    """
    if 200 <= reply.status <= 299:  # noqa: PLR2004 - the class of statuses
        provider_id = reply.headers.get("webhook-response-id")
        return Sent(clean_text(provider_id)[:_MAX_PROVIDER_ID] if provider_id else None)
    why = clean_text(reply.body) or f"answered with status {reply.status}"
    if reply.status == 410:  # noqa: PLR2004 - Gone
        return Permanent(why, code="410", disable=True, http_status=410)
    common = judge_common(reply, now)
    return common or Retry(why, code=str(reply.status), http_status=reply.status)


class WebhookSender:
    """Sends to the address of the channel, through the guard. Idempotent by `webhook-id`: nothing to commit before."""

    async def send(self, message: Message, config: Config, context: SendContext) -> Outcome:
        reply = await context.outbound.post(build(message, config, context))
        return judge(reply, context.now) if isinstance(reply, HttpReply) else reply


# Any, here and below: a JSON object on its way out; its shape is the specification's, section 4.
def _encoded(message: Message, channel_id: str, text: str, *, has_metadata: bool) -> bytes:
    told: dict[str, Any] = {"title": message.title, "message": text, "project": message.project}
    if message.heartbeat is not None:
        told["heartbeat"] = _heartbeat(message.heartbeat, has_metadata=has_metadata)
    if message.incident is not None:
        told["incident"] = _incident(message.incident)
        told["escalation"] = {"step": message.step, "steps": message.steps, "repeat": message.repeat}
    if message.broken is not None:
        told["broken"] = {
            "channel": message.broken.channel_id,
            "name": message.broken.name,
            "reason": message.broken.reason,
        }
    if message.notice is not None:
        told |= _notice(message.notice)
    if message.blind is not None:
        told["blind"] = {"from": rfc3339(message.blind.from_at), "to": rfc3339(message.blind.to_at)}
    told |= _present(channel=channel_id, url=message.url, ackUrl=message.ack_url)
    return msgspec.json.encode({"type": event_type(message), "timestamp": rfc3339(message.happened_at), "data": told})


def _heartbeat(heartbeat: HeartbeatPart, *, has_metadata: bool) -> dict[str, Any]:
    is_omitted = heartbeat.metadata is not None and not has_metadata
    return _present(
        id=heartbeat.id,
        name=heartbeat.name,
        slug=heartbeat.slug,
        namespace=heartbeat.namespace,
        mode=heartbeat.mode,
        status=heartbeat.status,
        metadata=heartbeat.metadata if has_metadata else None,
        metadataOmitted=True if is_omitted else None,
    )


def _notice(notice: NoticePart) -> dict[str, Any]:
    return _present(
        severity=notice.severity,
        bot={"id": notice.bot_id, "name": notice.bot_name},
        schedule=notice.schedule_id,
        run=notice.run_id,
        resolved=True if notice.is_resolved else None,
    )


def _incident(incident: IncidentPart) -> dict[str, Any]:
    return _present(
        id=incident.id,
        reason=incident.reason,
        openedAt=rfc3339(incident.opened_at),
        deadline=None if incident.deadline_at is None else rfc3339(incident.deadline_at),
        resolvedAt=None if incident.resolved_at is None else rfc3339(incident.resolved_at),
        resolution=incident.resolution,
        ackMessage=incident.ack_message,
        ackedBy=incident.acked_by,
    )


def _present(**values: object) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
