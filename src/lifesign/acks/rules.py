"""What a provider must show before it is believed, and what its words mean. Pure."""

import base64
import hashlib
import hmac
import re
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from lifesign.clock import EpochMs

_S = 1000
_DAY = 24 * 3600 * _S

LINK_DAYS_MS = 7 * _DAY
"""For how long after its end an incident is shown to those who have a link."""
SLACK_CLOCK_MS = 5 * 60 * _S
CALLBACK_KEPT_MS = _DAY
MAX_REQUESTS, WINDOW_MS = 60, 60 * _S
MAX_MESSAGE_CHARACTERS = 1000
SLACK_HOST = "hooks.slack.com"

_ACK = re.compile(r"\s*ack\s+([2-9A-HJKMNP-Z]{6})\s*\.?\s*", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


# Slack --------------------------------------------------------------------------------------------------------------
def is_from_slack(secret: str, headers: Mapping[str, str], body: bytes, now: EpochMs) -> bool:
    """Whether Slack signed this body lately.  Source: Slack, "Verifying requests", version v0.

    headers: with lower-case names.
    """
    stamp = headers.get("x-slack-request-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit()) or abs(now - int(stamp[:15]) * _S) > SLACK_CLOCK_MS:
        return False
    expected = "v0=" + hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), headers.get("x-slack-signature", "").encode())


def may_answer_at(response_url: str, webhook_url: str | None) -> bool:
    """Whether Slack's `response_url` is Slack's, or at the host that the channel posts to."""
    try:
        parts, host = urlsplit(response_url), urlsplit(webhook_url or "").hostname
    except ValueError:
        return False
    return parts.scheme in _DEFAULT_PORTS and parts.hostname is not None and parts.hostname in {SLACK_HOST, host}


# Twilio -------------------------------------------------------------------------------------------------------------
def is_from_twilio(token: str, address: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
    """Whether the gateway signed this form for `address`, as configured or with or without its default port.

    Source: Twilio, "Validating requests": HMAC-SHA1 of the address and each field's name and value, sorted by name.
    """
    said = "".join(f"{name}{value}" for name, value in sorted(form))
    fits = [
        hmac.compare_digest(
            base64.b64encode(hmac.new(token.encode(), f"{each}{said}".encode(), hashlib.sha1).digest()),
            signature.encode(),
        )
        for each in _spellings(address)
    ]
    return any(fits)


def _spellings(address: str) -> list[str]:
    parts = urlsplit(address)
    port = _DEFAULT_PORTS.get(parts.scheme)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    if port is None or parts.port not in {None, port}:
        return [address]
    return [parts._replace(netloc=each).geturl() for each in (f"{host}", f"{host}:{port}")]


def ack_code_in(text: str) -> str | None:
    """The code in `ACK <code>`, in any case and with any blanks."""
    found = _ACK.fullmatch(text)
    return found[1].upper() if found else None


# Links --------------------------------------------------------------------------------------------------------------
class Turnstile:
    """Lets each address through 60 times in a minute. Per node and in memory: it is there against guessing."""

    _most_addresses = 10_000

    def __init__(self) -> None:
        self._passed: dict[str, deque[EpochMs]] = {}

    def wait_ms(self, address: str, now: EpochMs) -> int | None:
        """None when `address` may pass; otherwise how long it has to wait."""
        if len(self._passed) >= self._most_addresses:
            self._passed = {key: times for key, times in self._passed.items() if now - times[-1] < WINDOW_MS}
        times = self._passed.setdefault(address, deque(maxlen=MAX_REQUESTS))
        if len(times) == MAX_REQUESTS and 0 <= now - times[0] < WINDOW_MS:
            return WINDOW_MS - (now - times[0])
        times.append(now)
        return None
