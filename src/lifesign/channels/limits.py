"""How fast each provider may be sent to: which channels share a limit, and how wide it is. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lifesign.channels.rules import ChannelType, Rate
from lifesign.settings import Settings

_DIGEST_LENGTH = 16
# What these providers document for one webhook address, one routing key, one sending number.
_SLACK, _PAGERDUTY, _SMS = Rate(1, 3), Rate(100 / 60, 20), Rate(1, 1)
# So many of a minute's e-mails may leave at once.
_EMAIL_BURST_SHARE = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one installation."""

    email_per_minute: int
    webhook_per_second: int
    sms_origin: str

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """What the operator set."""
        origin = settings.twilio_messaging_service_sid or settings.twilio_from or ""
        return cls(settings.email_per_minute, settings.webhook_per_second, origin)

    def rate(self, channel_type: ChannelType) -> Rate | None:
        """How fast channels of a type may send that share a bucket; None: as fast as they can."""
        match channel_type:
            case "email":
                burst = max(1, self.email_per_minute // _EMAIL_BURST_SHARE)
                return Rate(self.email_per_minute / 60, burst)
            case "webhook":
                per_second = self.webhook_per_second
                return Rate(per_second, per_second) if per_second else None
            case "slack":
                return _SLACK
            case "pagerduty":
                return _PAGERDUTY
            case "sms":
                return _SMS

    def bucket(self, channel_type: ChannelType, channel_id: str, stored_key: str | None) -> str:
        """The bucket a channel takes from. stored_key: what `bucket_key` said when the channel was saved."""
        match channel_type:
            case "email":
                return "email"
            case "sms":
                return f"sms:{self.sms_origin}"
            case "webhook" | "slack" | "pagerduty":
                return stored_key or f"{channel_type}:{channel_id}"


def bucket_key(channel_type: ChannelType, config: Mapping[str, Any]) -> str | None:  # Any: a channel's settings
    """What a channel shares its limit with others by: its address, routing key or host, unreadable.

    None for types whose limit is one for all channels. config: in clear.
    """
    match channel_type:
        case "slack":
            shared = config["webhookUrl"]
        case "pagerduty":
            shared = config["routingKey"]
        case "webhook":
            shared = urlsplit(config["url"]).netloc.rpartition("@")[2].lower()
        case _:
            return None
    return f"{channel_type}:{hashlib.sha256(shared.encode()).hexdigest()[:_DIGEST_LENGTH]}"
