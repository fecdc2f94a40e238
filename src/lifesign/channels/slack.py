"""Slack incoming webhooks: one message of a few blocks, with link buttons.

Slack has no key to tell a repeat by, so `called_at` is committed before the request is written, and a message that may
have arrived before says so in its title.
"""

from typing import Any

import msgspec

from lifesign.channels.config import Config
from lifesign.channels.message import Message
from lifesign.channels.outbound import clean_text, judge_common
from lifesign.channels.sender import HttpReply, HttpRequest, Outcome, Permanent, Retry, SendContext, Sent
from lifesign.clock import EpochMs, rfc3339

MAX_HEADER = 150
MAX_SECTION = 3000
MAX_BUTTON_TEXT = 75
MAX_URL = 3000
MAX_CONTEXT_ELEMENTS = 10
_MAX_FALLBACK_TEXT = 4000
ACK_ACTION = "lifesign_ack"
ACKNOWLEDGEABLE = ("page", "fallback")
_CUT = "..."
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_GONE_STATUSES = frozenset({403, 404, 410})

# Any: blocks are Slack's JSON, checked by Slack.
Block = dict[str, Any]


def build(message: Message, config: Config, context: SendContext) -> HttpRequest:
    """The request of this attempt; `context.maybe_sent` marks the title as a possible repeat."""
    title = f"{message.title} (possible repeat)" if context.maybe_sent else message.title
    # With a signing secret the server can believe the button; without one it is a link.
    token = context.ack_token if context.settings.slack_signing_secret is not None else None
    shown = blocks(title, message, token)
    content = {"text": fitted(f"{title}: {message.text}", _MAX_FALLBACK_TEXT), "blocks": shown}
    return HttpRequest(
        url=config["webhookUrl"],
        headers={"content-type": "application/json; charset=utf-8"},
        content=msgspec.json.encode(content),
    )


def blocks(title: str, message: Message, ack_token: str | None = None) -> list[Block]:
    """Header, section, context and, where there is something to press, actions.

    ack_token: what the button sends back to acknowledge; without one it is a link to the page that does.
    """
    shown: list[Block] = [
        {"type": "header", "text": _plain(title, MAX_HEADER)},
        # Slack refuses an empty text, and a step's message may be nothing but blanks.
        {"type": "section", "text": _markdown(message.text if message.text.strip() else title, MAX_SECTION)},
        {"type": "context", "elements": [_markdown(line, MAX_SECTION) for line in _facts(message)]},
    ]
    buttons = _buttons(message, ack_token)
    return [*shown, {"type": "actions", "elements": buttons}] if buttons else shown


def fitted(text: str, limit: int) -> str:
    """`text` escaped, and cut with `...` to `limit` characters, never inside an entity."""
    escaped = text.translate(_ESCAPES)
    if len(escaped) <= limit:
        return escaped
    kept: list[str] = []
    room = limit - len(_CUT)
    for character in text:
        piece = character.translate(_ESCAPES)
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + _CUT


def judge(reply: HttpReply, now: EpochMs) -> Outcome:
    """What an answer means: 200 alone is no success, Slack says `ok`."""
    why = clean_text(reply.body) or f"answered with status {reply.status}"
    status = reply.status
    if status == 200 and (reply.body == b"ok" or not reply.is_whole):  # noqa: PLR2004 - OK
        return Sent()
    if 200 <= status <= 299:  # noqa: PLR2004 - the class of statuses
        return Permanent(f"expected ok, got: {why}", code="unexpected_body", http_status=status)
    if status == 400 or status in _GONE_STATUSES:  # noqa: PLR2004 - Bad Request
        return Permanent(why, code=str(status), disable=status in _GONE_STATUSES, http_status=status)
    return judge_common(reply, now) or Retry(why, code=str(status), http_status=status)


class SlackSender:
    """Sends to the channel's webhook address, through the guard."""

    async def send(self, message: Message, config: Config, context: SendContext) -> Outcome:
        request = build(message, config, context)
        reply = await context.outbound.post(request, on_write=context.mark_called)
        return judge(reply, context.now) if isinstance(reply, HttpReply) else reply


def _facts(message: Message) -> list[str]:
    facts = [f"Project: {message.project}"]
    if message.notice is not None:
        facts += [f"Bot: {message.notice.bot_name}", f"Severity: {message.notice.severity}"]
    if message.heartbeat is not None:
        facts.append(f"Heartbeat: {message.heartbeat.slug}")
        if message.heartbeat.namespace:
            facts.append(f"Namespace: {message.heartbeat.namespace}")
    if message.incident is not None:
        facts.append(f"Reason: {message.incident.reason}")
        if message.incident.deadline_at is not None:
            facts.append(f"Deadline: {rfc3339(message.incident.deadline_at)}")
        if message.incident.acked_by:
            facts.append(f"Acknowledged by: {message.incident.acked_by}")
    if message.kind == "page" and message.step:
        facts.append(f"Step {message.step} of {message.steps}")
    return facts[:MAX_CONTEXT_ELEMENTS]


def _buttons(message: Message, ack_token: str | None) -> list[Block]:
    buttons: list[Block] = []
    if message.kind in ACKNOWLEDGEABLE and ack_token is not None:
        text = _plain("Acknowledge", MAX_BUTTON_TEXT)
        buttons.append(
            {"type": "button", "action_id": ACK_ACTION, "text": text, "value": ack_token, "style": "primary"}
        )
    elif message.kind in ACKNOWLEDGEABLE and message.ack_url:
        buttons.append(_link("Acknowledge", message.ack_url, action_id="lifesign_ack_link") | {"style": "primary"})
    if message.url:
        buttons.append(_link("Details", message.url, action_id="lifesign_details"))
    # An address is never cut: it would lead nowhere, and Slack would refuse the whole message for one too long.
    return [button for button in buttons if len(button.get("url", "")) <= MAX_URL]


def acknowledged(text: str) -> bytes:
    """What stands in the place of a message once its button was pressed."""
    shown = [{"type": "section", "text": _markdown(text, MAX_SECTION)}]
    content = {"replace_original": True, "text": fitted(text, _MAX_FALLBACK_TEXT), "blocks": shown}
    return msgspec.json.encode(content)


def _link(text: str, url: str, *, action_id: str) -> Block:
    return {"type": "button", "action_id": action_id, "text": _plain(text, MAX_BUTTON_TEXT), "url": url}


def _plain(text: str, limit: int) -> Block:
    return {"type": "plain_text", "text": fitted(text, limit), "emoji": False}


def _markdown(text: str, limit: int) -> Block:
    # verbatim: otherwise Slack itself looks for channels and people in what a job may have reported.
    return {"type": "mrkdwn", "text": fitted(text, limit), "verbatim": True}
