from typing import get_args

from lifesign.channels.rules import ChannelType
from lifesign.channels.senders import CHANNEL_CAP, IS_IDEMPOTENT, IS_MACHINE, SENDERS, SLOTS


def test_every_channel_type_stands_in_every_table() -> None:
    types = set(get_args(ChannelType))

    assert types == {"email", "slack", "webhook", "pagerduty", "sms"}
    for table in (SENDERS, IS_MACHINE, IS_IDEMPOTENT, SLOTS, CHANNEL_CAP):
        assert set(table) == types


def test_no_channel_can_take_more_than_the_slots_of_its_type() -> None:
    assert all(CHANNEL_CAP[each] <= SLOTS[each] for each in SLOTS)
