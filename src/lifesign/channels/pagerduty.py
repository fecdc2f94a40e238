"""PagerDuty Events API v2: an incident is one alert there, held together by its id as `dedup_key`."""

import asyncio
import contextlib
from typing import Any

import msgspec

from lifesign.channels.config import Config
from lifesign.channels.message import Message
from lifesign.channels.outbound import clean_text, judge_common
from lifesign.channels.sender import (
    SEND_TIMEOUT_S,
    HttpReply,
    HttpRequest,
    Outcome,
    Permanent,
    Retry,
    SendContext,
    Sent,
)
from lifesign.clock import EpochMs, rfc3339

MAX_SUMMARY = 1024
MAX_BODY_BYTES = 512_000
DEFAULT_SEVERITY = "critical"
_CUT = "..."
_UNAUTHORISED = frozenset({401, 403})

# Any: events are PagerDuty's JSON, checked by PagerDuty.
Event = dict[str, Any]


def build(message: Message, config: Config, context: SendContext) -> HttpRequest:
    """The event of this attempt: `trigger` for a page or a test, `resolve` for every kind of close."""
    if message.kind == "resolve" or (message.notice is not None and message.notice.is_resolved):
        return build_resolve(message, config, context)
    event = _event("trigger", message, config, context)
    content = msgspec.json.encode(event | {"payload": _payload(message, config)})
    if len(content) > MAX_BODY_BYTES:
        payload = {name: value for name, value in _payload(message, config).items() if name != "custom_details"}
        content = msgspec.json.encode(event | {"payload": payload})
    return _request(content, context)


def build_resolve(message: Message, config: Config, context: SendContext) -> HttpRequest:
    """The `resolve` with the same `dedup_key`; also what follows the trigger of a test."""
    return _request(msgspec.json.encode(_event("resolve", message, config, context)), context)


def dedup_key(message: Message, notification_id: str) -> str:
    """The incident's id; a test has no incident and must not meet one; a broken channel is one alert, however often."""
    if message.notice is not None:
        return f"{message.notice.schedule_id}:{message.notice.key}"
    if message.broken is not None:
        return f"broken-{message.broken.channel_id}"
    if message.flap is not None and message.heartbeat is not None:
        return f"{message.heartbeat.id}:flap"
    return message.incident.id if message.incident is not None else f"test-{notification_id}"


def judge(reply: HttpReply, key: str, now: EpochMs) -> Outcome:
    """What an answer means. key: the `dedup_key` that was sent."""
    status = reply.status
    if status == 202:  # noqa: PLR2004 - Accepted, the one success of this API
        return Sent(key)
    why = clean_text(reply.body) or f"answered with status {status}"
    if status == 400:  # noqa: PLR2004 - Bad Request
        return Permanent(why, code="400", disable=_names_routing_key(reply.body), http_status=400)
    if status in _UNAUTHORISED:
        return Permanent(why, code=str(status), disable=True, http_status=status)
    return judge_common(reply, now) or Retry(why, code=str(status), http_status=status)


class PagerDutySender:
    """Sends to the operator's base address, so without the guard. Idempotent by `dedup_key`."""

    async def send(self, message: Message, config: Config, context: SendContext) -> Outcome:
        deadline = asyncio.get_running_loop().time() + SEND_TIMEOUT_S
        reply = await context.outbound.post(build(message, config, context), guarded=False)
        if not isinstance(reply, HttpReply):
            return reply
        outcome = judge(reply, dedup_key(message, context.notification_id), context.now)
        if message.kind == "test" and isinstance(outcome, Sent):
            # Tidying up, within the same 20 s: whatever becomes of it, the test tells how the trigger went.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await context.outbound.post(build_resolve(message, config, context), guarded=False)
        return outcome


def _event(action: str, message: Message, config: Config, context: SendContext) -> Event:
    event: Event = {
        "routing_key": config["routingKey"],
        "event_action": action,
        "dedup_key": dedup_key(message, context.notification_id),
        "client": "Lifesign",
    }
    links = [
        {"href": href, "text": text}
        for href, text in ((message.ack_url, "Acknowledge"), (message.url, "Details"))
        if href is not None
    ]
    return event | ({"client_url": message.url} if message.url else {}) | ({"links": links} if links else {})


def _payload(message: Message, config: Config) -> Event:
    summary = f"{message.title}: {message.text}"
    severity = "info" if message.kind == "test" else config.get("severity", DEFAULT_SEVERITY)
    payload: Event = {
        "summary": summary if len(summary) <= MAX_SUMMARY else summary[: MAX_SUMMARY - len(_CUT)] + _CUT,
        "source": "lifesign",
        "severity": severity if message.notice is None else message.notice.severity,
        "timestamp": rfc3339(message.happened_at),
    }
    if message.heartbeat is not None:
        payload |= {"source": message.heartbeat.slug, "component": message.heartbeat.name}
        if message.heartbeat.namespace:
            payload["group"] = message.heartbeat.namespace
    if message.incident is not None:
        payload |= {"timestamp": rfc3339(message.incident.opened_at), "class": message.incident.reason}
    details = _details(message)
    return payload | ({"custom_details": details} if details else {})


def _details(message: Message) -> Event:
    details: Event = {}
    if message.heartbeat is not None and message.heartbeat.metadata is not None:
        details["metadata"] = message.heartbeat.metadata
    if message.incident is not None:
        details["step"] = message.step
        if message.incident.deadline_at is not None:
            details["deadline"] = rfc3339(message.incident.deadline_at)
    return details | ({"url": message.url} if message.url else {})


def _names_routing_key(body: bytes) -> bool:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    errors = answer.get("errors") if isinstance(answer, dict) else None
    faults = errors if isinstance(errors, list) else [errors]
    return any("routing_key" in str(fault).lower().replace(" ", "_") for fault in faults)


def _request(content: bytes, context: SendContext) -> HttpRequest:
    return HttpRequest(
        url=f"{context.settings.pagerduty_url}/v2/enqueue",
        headers={"content-type": "application/json"},
        content=content,
    )
