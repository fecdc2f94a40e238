"""HTTP of providers that call back: Slack's button, Twilio's delivery reports and answers.

Nothing they say is believed before its signature is. Spec "Channels", sections 3 and 6.
"""

from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import msgspec
import structlog
from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from lifesign.acks import rules, service
from lifesign.acks.service import Seen
from lifesign.channels import outbox, slack
from lifesign.channels import service as channels
from lifesign.channels.delivery import courier_of
from lifesign.channels.rules import ChannelNotFound, SecretUnreadable
from lifesign.channels.sender import HttpReply, HttpRequest
from lifesign.clock import rfc3339
from lifesign.http.body import BodyTooLarge, read_body
from lifesign.http.context import Context, context_of
from lifesign.incidents import attention

router = APIRouter(include_in_schema=False)
log = structlog.get_logger("lifesign.acks")

_MAX_BODY_BYTES = 65_536

# Any: JSON of a provider, before a look at it.
Json = Any


# Slack --------------------------------------------------------------------------------------------------------------
@router.post("/hooks/slack/interactions")
async def slack_interaction(request: Request) -> Response:
    """Acknowledge when the button of a message is pressed."""
    context = context_of(request)
    try:
        body = await read_body(request, _MAX_BODY_BYTES)
    except BodyTooLarge:
        return Response(status_code=413)
    secret = context.settings.slack_signing_secret
    if secret is None or not rules.is_from_slack(secret.get_secret_value(), dict(request.headers), body, context.now()):
        return Response(status_code=401)
    payload = _payload(body)
    if payload is None:
        return Response(status_code=400)
    token = _pressed(payload)
    grant = None if token is None else courier_of(request).kit.acks.read(token)
    if grant is None:
        if token is not None:
            log.warning("slack.token_refused")
        return Response(status_code=200)
    done = await context.db.write(service.acknowledge, grant, _actor(payload), None, context.now())
    url = payload.get("response_url")
    if done is None or not done[1] or not isinstance(url, str):
        return Response(status_code=200)
    return Response(status_code=200, background=BackgroundTask(_replace_message, request, url, done[0]))


def _payload(body: bytes) -> dict[str, Json] | None:
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        payload = msgspec.json.decode(fields.get("payload", ""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return payload if isinstance(payload, dict) else None


def _pressed(payload: dict[str, Json]) -> str | None:
    """The value of our button, if that is what was pressed."""
    actions = payload.get("actions")
    if payload.get("type") != "block_actions" or not isinstance(actions, list):
        return None
    for action in actions:
        if isinstance(action, dict) and action.get("action_id") == slack.ACK_ACTION:
            return str(action.get("value", ""))
    return None


def _actor(payload: dict[str, Json]) -> str:
    user = payload.get("user")
    known = user if isinstance(user, dict) else {}
    name = known.get("name") or known.get("username") or "unknown"
    return f"slack:{known.get('id', 'unknown')} ({name})"[:200].replace("\x00", "")


async def _replace_message(request: Request, url: str, seen: Seen) -> None:
    """Say in the place of the message who acknowledged; once, and if it fails nothing is lost but the words."""
    context, kit = context_of(request), courier_of(request).kit
    try:
        channel = await context.db.read(channels.get_channel, seen.incident.project_id, seen.channel_id)
        config = channels.open_for_sending(kit, channel, context.now())
    except (ChannelNotFound, SecretUnreadable):
        config = {}
    if not rules.may_answer_at(url, config.get("webhookUrl")):
        log.warning("slack.response_url_refused", channel_id=seen.channel_id)
        return
    at = rfc3339(seen.incident.resolved_at or context.now())
    content = slack.acknowledged(f"{seen.name} was acknowledged by {seen.incident.ack_actor} at {at}")
    reply = await kit.outbound.post(HttpRequest(url, {"content-type": "application/json"}, content))
    if not isinstance(reply, HttpReply):
        log.info("slack.response_failed", channel_id=seen.channel_id, code=reply.code)


# Twilio -------------------------------------------------------------------------------------------------------------
@router.post("/hooks/twilio/status")
async def twilio_status(request: Request) -> Response:
    """Note that a text was delivered, or was not."""
    context = context_of(request)
    form = await _signed_form(request, context)
    if isinstance(form, Response):
        return form
    sid, status = form.get("MessageSid", ""), form.get("MessageStatus", "")
    now = context.now()
    if status == "delivered":
        await context.db.write(outbox.note_delivered, sid, now)
    elif status in {"undelivered", "failed"}:
        code = form.get("ErrorCode", "")
        code = code if code.isascii() and code.isdigit() else status
        incidents = await context.db.write(outbox.note_undelivered, sid, code[:20], now)
        if incidents:
            await context.db.write(attention.hasten_failover, incidents, now)
    return Response(status_code=204)


@router.post("/hooks/twilio/inbound")
async def twilio_inbound(request: Request) -> Response:
    """Acknowledge when the code of a text is texted back."""
    context = context_of(request)
    form = await _signed_form(request, context)
    if isinstance(form, Response):
        return form
    number, said = form.get("From", ""), form.get("Body", "")
    answer = await context.db.write(
        service.acknowledge_by_code, form.get("MessageSid", "")[:100], number, said, context.now()
    )
    if answer == service.UNKNOWN_CODE:
        log.warning("sms.code_refused")
    text = f'<?xml version="1.0" encoding="UTF-8"?><Response><Message>{escape(answer)}</Message></Response>'
    return Response(text, media_type="text/xml")


async def _signed_form(request: Request, context: Context) -> dict[str, str] | Response:
    """The fields of a form that the gateway signed; otherwise the refusal."""
    try:
        body = await read_body(request, _MAX_BODY_BYTES)
    except BodyTooLarge:
        return Response(status_code=413)
    fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    token, public_url = context.settings.twilio_auth_token, context.settings.public_url
    query = f"?{request.url.query}" if request.url.query else ""
    if token is None or public_url is None:
        return Response(status_code=403)
    address = f"{public_url}{request.url.path}{query}"
    signature = request.headers.get("x-twilio-signature", "")
    if not rules.is_from_twilio(token.get_secret_value(), address, fields, signature):
        return Response(status_code=403)
    return {name: value.replace("\x00", "") for name, value in fields}
