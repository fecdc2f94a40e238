"""Text messages through a gateway that speaks Twilio's API.

Nothing makes the gateway accept a text only once, so `called_at` is committed before the request is written.
"""

import base64
import re
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from lifesign.channels.config import Config
from lifesign.channels.message import Message
from lifesign.channels.outbound import clean_text, judge_common
from lifesign.channels.rules import ALARMS
from lifesign.channels.sender import HttpReply, HttpRequest, Outcome, Permanent, Retry, SendContext, Sent, Unknown
from lifesign.clock import EpochMs
from lifesign.settings import Settings

MAX_BODY = 300
VALIDITY_S = 300
STATUS_PATH = "/hooks/twilio/status"
LOOK_BACK = 20
AUTH_RETRY_MS = 15 * 60 * 1000
NOT_CONFIGURED = Permanent("SMS gateway is not configured", code="not_configured")
_CUT = "..."
_SHORTEST_SPACE_FOR_TEXT = 60
_BLANKS = re.compile(r"\s+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Not a number, not reachable by text, opted out, not mobile: the address itself is at fault.
_BAD_NUMBER_CODES = frozenset({21211, 21214, 21610, 21614})
_UNAUTHORISED = frozenset({401, 403})
_FAILED = frozenset({"failed", "undelivered", "canceled"})


def is_configured(settings: Settings) -> bool:
    """Whether the server has an account, credentials and something to send from."""
    has_credentials = settings.twilio_auth_token or (settings.twilio_api_key and settings.twilio_api_secret)
    has_origin = settings.twilio_from or settings.twilio_messaging_service_sid
    return bool(settings.twilio_account_sid and has_credentials and has_origin)


def build(message: Message, config: Config, context: SendContext) -> HttpRequest:  # noqa: ARG001 - one signature for all
    """The request of this attempt, to `context.dest`. Only for settings that are configured."""
    settings = context.settings
    form = {"To": context.dest or "", "Body": body(message), "ValidityPeriod": str(VALIDITY_S), "RiskCheck": "disable"}
    if settings.twilio_messaging_service_sid:
        form["MessagingServiceSid"] = settings.twilio_messaging_service_sid
    else:
        form["From"] = settings.twilio_from or ""
    if settings.public_url is not None:
        form["StatusCallback"] = f"{settings.public_url}{STATUS_PATH}"
    return HttpRequest(
        url=_messages_url(settings),
        headers={"content-type": "application/x-www-form-urlencoded", "authorization": _basic(settings)},
        content=urlencode(form).encode(),
    )


def body(message: Message) -> str:
    """Title, text and how to acknowledge, in one line of at most 300 characters.

    The code always comes; the address whole or not at all: a cut one leads nowhere.
    """
    words = _one_line(f"{message.title} {message.text}")
    is_alarm = message.kind in ALARMS
    code = message.incident.ack_code if message.incident is not None and is_alarm else None
    reply = "" if code is None else f" Reply ACK {code}"
    tail = f"{reply} {message.ack_url}" if message.ack_url and is_alarm else reply
    if MAX_BODY - len(tail) < _SHORTEST_SPACE_FOR_TEXT:
        tail = reply
    room = MAX_BODY - len(tail)
    return (words if len(words) <= room else words[: room - len(_CUT)] + _CUT) + tail


def judge(reply: HttpReply, now: EpochMs) -> Outcome:
    """What an answer means: accepted is not yet delivered, and accepted without a `sid` is not even certain."""
    status = reply.status
    answer = _object(reply.body)
    if status in {200, 201}:
        sid = answer.get("sid")
        return Sent(sid) if isinstance(sid, str) and sid else Unknown("the answer names no sid")
    why = clean_text(reply.body) or f"answered with status {status}"
    if status == 400:  # noqa: PLR2004 - Bad Request
        fault = answer.get("code")
        is_numbered = isinstance(fault, int) and not isinstance(fault, bool)
        code = str(fault) if is_numbered else "400"
        return Permanent(why, code=code, disable=is_numbered and fault in _BAD_NUMBER_CODES, http_status=400)
    if status in _UNAUTHORISED:
        return Retry(why, code="auth", after_ms=AUTH_RETRY_MS, http_status=status)
    if status == 404:  # noqa: PLR2004 - Not Found: no such account
        return Permanent(why, code="not_configured", http_status=404)
    return judge_common(reply, now) or Retry(why, code=str(status), http_status=status)


class SmsSender:
    """Sends to the operator's gateway, so without the guard."""

    async def send(self, message: Message, config: Config, context: SendContext) -> Outcome:
        if not is_configured(context.settings):
            return NOT_CONFIGURED
        request = build(message, config, context)
        if context.maybe_sent:
            found = await self._look_up(message, context)
            if found is not None:
                return found
        reply = await context.outbound.post(request, guarded=False, on_write=context.mark_called)
        return judge(reply, context.now) if isinstance(reply, HttpReply) else reply

    async def _look_up(self, message: Message, context: SendContext) -> Outcome | None:
        """What became of an earlier attempt that got no answer; None when the gateway knows of none."""
        query = urlencode({"To": context.dest or "", "PageSize": str(LOOK_BACK)})
        url = f"{_messages_url(context.settings)}?{query}"
        reply = await context.outbound.get(url, {"authorization": _basic(context.settings)}, guarded=False)
        if not isinstance(reply, HttpReply):
            # Asking changes nothing at the gateway, so it may simply be asked again.
            return Retry(reply.why, reply.code)
        if reply.status != 200:  # noqa: PLR2004 - OK
            return judge(reply, context.now)
        sid = sid_of_earlier(_object(reply.body), body(message), context.created_at)
        return None if sid is None else Sent(sid)


def sid_of_earlier(answer: dict[str, Any], text: str, created_at: EpochMs) -> str | None:  # Any: a gateway's JSON
    """The sid of a text that says this, was sent since `created_at`, and has not failed by now.

    A gateway may say more than it was given, as trial accounts do. One that failed has told nobody, and the report of
    it came when nobody knew its sid: the text is sent again.
    """
    found = answer.get("messages")
    for each in found if isinstance(found, list) else []:
        if not isinstance(each, dict) or each.get("status") in _FAILED:
            continue
        sid, said = each.get("sid"), each.get("body")
        if not (isinstance(sid, str) and sid and isinstance(said, str) and text in said):
            continue
        made_at = _instant(each.get("date_created"))
        # The gateway has whole seconds.
        if made_at is None or made_at >= created_at // 1000:
            return sid
    return None


def _instant(text: object) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if isinstance(text, str) else None
    except (TypeError, ValueError):
        return None


def _messages_url(settings: Settings) -> str:
    account = quote(settings.twilio_account_sid or "", safe="")
    return f"{settings.twilio_url}/2010-04-01/Accounts/{account}/Messages.json"


def _one_line(text: str) -> str:
    # Line breaks and tabs part words, so they become blanks before the other control characters go.
    return _CONTROLS.sub("", _BLANKS.sub(" ", text)).strip()


def _basic(settings: Settings) -> str:
    if settings.twilio_api_key and settings.twilio_api_secret:
        pair = f"{settings.twilio_api_key}:{settings.twilio_api_secret.get_secret_value()}"
    else:
        token = settings.twilio_auth_token
        pair = f"{settings.twilio_account_sid}:{token.get_secret_value() if token else ''}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _object(content: bytes) -> dict[str, Any]:  # Any: whatever the gateway answered
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return answer if isinstance(answer, dict) else {}
