"""The one table from channel type to sender, and what the outbox must know of each type."""

from typing import Final

from lifesign.channels.email import EmailSender
from lifesign.channels.pagerduty import PagerDutySender
from lifesign.channels.rules import ChannelType
from lifesign.channels.sender import Sender
from lifesign.channels.slack import SlackSender
from lifesign.channels.sms import SmsSender
from lifesign.channels.webhook import WebhookSender

SENDERS: Final[dict[ChannelType, Sender]] = {
    "email": EmailSender(),
    "slack": SlackSender(),
    "webhook": WebhookSender(),
    "pagerduty": PagerDutySender(),
    "sms": SmsSender(),
}

IS_MACHINE: Final[dict[ChannelType, bool]] = {
    "email": False,
    "slack": False,
    "webhook": True,
    "pagerduty": True,
    "sms": False,
}
"""Read by a program: gets every single message, never a digest in its place."""

IS_IDEMPOTENT: Final[dict[ChannelType, bool]] = {
    "email": False,
    "slack": False,
    "webhook": True,
    "pagerduty": True,
    "sms": False,
}
"""The receiver tells a repeat by its key, so `called_at` need not be committed before the request."""

HAS_ONE_ADDRESS: Final[dict[ChannelType, bool]] = {
    "email": False,
    "slack": True,
    "webhook": True,
    "pagerduty": True,
    "sms": False,
}
"""What refuses one message of the channel for good refuses all of them. Of several addresses the others still work."""

SLOTS: Final[dict[ChannelType, int]] = {"email": 8, "slack": 8, "webhook": 32, "pagerduty": 8, "sms": 4}
"""Sends in flight at once, over all channels of the type."""

CHANNEL_CAP: Final[dict[ChannelType, int]] = {"email": 4, "slack": 4, "webhook": 16, "pagerduty": 4, "sms": 4}
"""Sends in flight at once to one channel."""
