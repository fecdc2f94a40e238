"""What the vendors refuse, and with which words. Pure: a request in, the vendor's answer out."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict: the status and body the vendor would send."""

    status: int
    body: str
    content_type: str = "application/json"

    @property
    def is_accepted(self) -> bool:
        return self.status < 300


_SLACK_BLOCK_TYPES = {"header", "section", "context", "actions", "divider"}
_PAGERDUTY_SEVERITIES = {"critical", "error", "warning", "info"}
_TWILIO_FIELDS = {
    "To",
    "From",
    "MessagingServiceSid",
    "Body",
    "ValidityPeriod",
    "RiskCheck",
    "StatusCallback",
}
_E164 = re.compile(r"\+[0-9]{7,15}")
_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")


def slack(headers: Mapping[str, str], body: bytes) -> Answer:
    """An incoming webhook: `ok`, or 400 with one word."""
    if not headers.get("content-type", "").startswith("application/json"):
        return _text(400, "invalid_payload")
    payload = _json_object(body)
    if payload is None:
        return _text(400, "invalid_payload")
    if not isinstance(payload.get("text"), str) or not payload["text"]:
        return _text(400, "no_text")
    blocks = payload.get("blocks", [])
    if not isinstance(blocks, list) or len(blocks) > 50 or not all(_is_slack_block(block) for block in blocks):
        return _text(400, "invalid_blocks")
    return _text(200, "ok")


def pagerduty(headers: Mapping[str, str], body: bytes) -> Answer:
    """Events v2: 202, or 400 with the list of errors."""
    if len(body) > 512 * 1024:
        return Answer(413, json.dumps({"status": "payload too large", "message": "Event size is too large"}))
    event = _json_object(body) if headers.get("content-type", "").startswith("application/json") else None
    if event is None:
        return _invalid_event("JSON could not be parsed")
    errors = list(_event_errors(event))
    if errors:
        return _invalid_event(*errors)
    return Answer(
        202,
        json.dumps({"status": "success", "message": "Event processed", "dedup_key": event.get("dedup_key", "made")}),
    )


def twilio(headers: Mapping[str, str], body: bytes, *, account_sid: str, sid: str) -> Answer:
    """Create a message: 201 with its sid, or an error with Twilio's own code."""
    user = _basic_user(headers.get("authorization", ""))
    if user is None or not (user == account_sid or user.startswith("SK")):
        return _twilio_error(401, 20003, "Authenticate")
    if headers.get("content-type", "") != "application/x-www-form-urlencoded":
        return _twilio_error(400, 21604, "A 'To' phone number is required.")
    pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    form = dict(pairs)
    if len(form) != len(pairs) or set(form) - _TWILIO_FIELDS:
        return _twilio_error(400, 20001, "Unknown parameters")
    if not form.get("To"):
        return _twilio_error(400, 21604, "A 'To' phone number is required.")
    if not _E164.fullmatch(form["To"]):
        return _twilio_error(400, 21211, "Invalid 'To' Phone Number")
    if ("From" in form) == ("MessagingServiceSid" in form):
        return _twilio_error(400, 21603, "A 'From' phone number is required.")
    if not form.get("Body"):
        return _twilio_error(400, 21602, "Message body is required.")
    if len(form["Body"]) > 1600:
        return _twilio_error(400, 21617, "The concatenated message body exceeds the 1600 character limit")
    if not 1 <= _number(form.get("ValidityPeriod", "14400")) <= 14400:
        return _twilio_error(400, 21606, "ValidityPeriod is out of range")
    created = {"sid": sid, "status": "queued", "to": form["To"], "body": form["Body"], "account_sid": account_sid}
    return Answer(201, json.dumps(created))


def _is_slack_block(block: Any) -> bool:  # Any: whatever the JSON holds
    if not isinstance(block, dict) or block.get("type") not in _SLACK_BLOCK_TYPES:
        return False
    match block["type"]:
        case "header":
            return _is_slack_text(block.get("text"), 150, kinds=("plain_text",))
        case "section":
            return _is_slack_text(block.get("text"), 3000)
        case "context":
            elements = block.get("elements")
            return (
                isinstance(elements, list)
                and 1 <= len(elements) <= 10
                and all(_is_slack_text(element, 3000) for element in elements)
            )
        case "actions":
            elements = block.get("elements")
            return (
                isinstance(elements, list)
                and 1 <= len(elements) <= 25
                and all(_is_slack_button(element) for element in elements)
            )
        case _:
            return True


def _is_slack_text(text: Any, limit: int, *, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")) -> bool:  # Any: JSON
    return (
        isinstance(text, dict)
        and text.get("type") in kinds
        and isinstance(text.get("text"), str)
        and 1 <= len(text["text"]) <= limit
    )


def _is_slack_button(button: Any) -> bool:  # Any: JSON
    return (
        isinstance(button, dict)
        and button.get("type") == "button"
        and _is_slack_text(button.get("text"), 75, kinds=("plain_text",))
        and len(button.get("value", "")) <= 2000
        and len(button.get("url", "")) <= 3000
        and len(button.get("action_id", "")) <= 255
    )


def _event_errors(event: dict[str, Any]) -> list[str]:  # Any: JSON
    errors = []
    key = event.get("routing_key")
    if not isinstance(key, str) or not _ROUTING_KEY.fullmatch(key):
        errors.append("'routing_key' is invalid")
    if event.get("event_action") not in ("trigger", "acknowledge", "resolve"):
        errors.append("'event_action' is invalid")
    dedup_key = event.get("dedup_key", "")
    if not isinstance(dedup_key, str) or len(dedup_key) > 255:
        errors.append("'dedup_key' is invalid")
    if event.get("event_action") != "trigger":
        if not dedup_key:
            errors.append("'dedup_key' is missing or blank")
        return errors
    payload = event.get("payload")
    if not isinstance(payload, dict):
        return [*errors, "'payload' is missing or blank"]
    errors += [
        f"'payload.{name}' is missing or blank"
        for name in ("summary", "source", "severity")
        if not isinstance(payload.get(name), str) or not payload[name]
    ]
    if len(str(payload.get("summary", ""))) > 1024:
        errors.append("'payload.summary' is too long (maximum 1024 characters)")
    if payload.get("severity") not in _PAGERDUTY_SEVERITIES:
        errors.append("'payload.severity' is invalid (must be one of the following: critical, warning, error, info)")
    links = event.get("links", [])
    if not all(isinstance(link, dict) and isinstance(link.get("href"), str) for link in links):
        errors.append("'links' is invalid")
    return errors


def _invalid_event(*errors: str) -> Answer:
    return Answer(
        400, json.dumps({"status": "invalid event", "message": "Event object is invalid", "errors": list(errors)})
    )


def _twilio_error(status: int, code: int, message: str) -> Answer:
    return Answer(status, json.dumps({"code": code, "message": message, "more_info": "", "status": status}))


def _text(status: int, body: str) -> Answer:
    return Answer(status, body, "text/plain")


def _json_object(body: bytes) -> dict[str, Any] | None:  # Any: JSON
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _basic_user(header: str) -> str | None:
    scheme, _, encoded = header.partition(" ")
    if scheme != "Basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user if colon and password else None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else -1
