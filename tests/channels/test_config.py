import json
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from lifesign.channels import config as configs
from lifesign.channels.rules import ChannelType, SecretUnreadable
from lifesign.channels.secrets import SecretBox
from lifesign.channels.targets import GuardPolicy
from lifesign.faults import InvalidInput

STRICT = GuardPolicy()
PRIVATE = GuardPolicy(allow_private=True)
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"  # of 24 bytes
OTHER_SECRET = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXphYmNkZWY="  # of 32 bytes
SLACK_URL = "https://hooks.slack.com/services/T000/B000/abcdefghWXYZ"
ROUTING_KEY = "0123456789abcdefghijABCDEFGHIJ99"
Config = dict[str, Any]  # Any: JSON


def _faults(channel_type: ChannelType, config: Any, policy: GuardPolicy = STRICT) -> list[str]:  # Any: as it came
    with pytest.raises(InvalidInput) as raised:
        configs.validate(channel_type, config, policy)
    return [fault.field for fault in raised.value.faults]


@pytest.mark.parametrize(
    ("channel_type", "config"),
    [
        ("email", {"to": "ops@example.com"}),
        ("email", {"to": ["a@example.com", "b@example.com"]}),
        ("email", {"to": [f"n{n}@example.com" for n in range(10)]}),
        ("email", {"to": "x" * 242 + "@example.com"}),
        ("slack", {"webhookUrl": SLACK_URL}),
        ("webhook", {"url": "http://example.com/hook"}),
        ("webhook", {"url": "https://example.com/hook", "secret": SECRET, "headers": {"X-Team": "ops"}}),
        ("webhook", {"url": "https://example.com/", "headers": {f"X-{n}": "v" * 2000 for n in range(20)}}),
        ("webhook", {"url": "https://example.com/", "headers": {}}),
        ("pagerduty", {"routingKey": ROUTING_KEY}),
        ("pagerduty", {"routingKey": ROUTING_KEY, "severity": "warning"}),
        ("sms", {"to": "+15550100"}),
        ("sms", {"to": ["+155501002003004", "+15550100201"]}),
    ],
)
def test_a_good_config_is_returned_as_it_came(channel_type: ChannelType, config: Config) -> None:
    assert configs.validate(channel_type, config, STRICT) == config


@pytest.mark.parametrize(
    ("channel_type", "config", "fields"),
    [
        ("email", None, ["config"]),
        ("email", [], ["config"]),
        ("email", {}, ["config.to"]),
        ("email", {"to": None}, ["config.to"]),
        ("email", {"to": []}, ["config.to"]),
        ("email", {"to": [f"n{n}@example.com" for n in range(11)]}, ["config.to"]),
        ("email", {"to": ["a@example.com", "A@Example.com"]}, ["config.to"]),
        ("email", {"to": "nobody"}, ["config.to"]),
        ("email", {"to": "a@b@example.com"}, ["config.to"]),
        ("email", {"to": "@example.com"}, ["config.to"]),
        ("email", {"to": "a@"}, ["config.to"]),
        ("email", {"to": "x" * 243 + "@example.com"}, ["config.to"]),
        ("email", {"to": "a@example.com\r\nBcc: b@example.com"}, ["config.to"]),
        ("email", {"to": "Ops <a@example.com>"}, ["config.to"]),
        ("email", {"to": "a\ud800@example.com"}, ["config.to"]),
        ("email", {"to": "a@example.com", "cc": "b@example.com"}, ["config.cc"]),
        ("slack", {"url": SLACK_URL}, ["config.url", "config.webhookUrl"]),
        ("slack", {"webhookUrl": "http://hooks.slack.com/services/x"}, ["config.webhookUrl"]),
        ("slack", {"webhookUrl": "https://127.0.0.1/services/x"}, ["config.webhookUrl"]),
        ("slack", {"webhookUrl": 5}, ["config.webhookUrl"]),
        ("webhook", {"url": "ftp://example.com/"}, ["config.url"]),
        ("webhook", {"url": "https://user@example.com/"}, ["config.url"]),
        ("webhook", {"url": "https://example.com/" + "x" * 2030}, ["config.url"]),
        ("webhook", {"url": "https://example.com/", "secret": None}, ["config.secret"]),
        ("webhook", {"url": "https://example.com/", "secret": "whsec_short"}, ["config.secret"]),
        ("webhook", {"url": "https://example.com/", "secret": SECRET.removeprefix("whsec_")}, ["config.secret"]),
        ("webhook", {"url": "https://example.com/", "secret": "whsec_" + "QUFB" * 22}, ["config.secret"]),
        ("webhook", {"url": "https://example.com/", "secret": "whsec_" + "!" * 40}, ["config.secret"]),
        ("webhook", {"url": "https://example.com/", "secret": "whsec_" + "é" * 40}, ["config.secret"]),
        ("webhook", {"url": "https://example.com/", "previousSecret": SECRET}, ["config.previousSecret"]),
        ("pagerduty", {"routingKey": "short"}, ["config.routingKey"]),
        ("pagerduty", {"routingKey": ROUTING_KEY + "\n"}, ["config.routingKey"]),
        ("pagerduty", {"routingKey": ROUTING_KEY, "severity": "fatal"}, ["config.severity"]),
        (
            "pagerduty",
            {"routingKey": "x", "severity": [], "a": 1},
            ["config.a", "config.routingKey", "config.severity"],
        ),
        ("sms", {"to": "15550100200"}, ["config.to"]),
        ("sms", {"to": "+123456"}, ["config.to"]),
        ("sms", {"to": "+1234567890123456"}, ["config.to"]),
        ("sms", {"to": "+1 555 0100"}, ["config.to"]),
        ("sms", {"to": "+１５５５０１００"}, ["config.to"]),  # noqa: RUF001 - digits that are none
        ("sms", {"to": ["+15550100200", 5]}, ["config.to"]),
        ("sms", {"to": []}, ["config.to"]),
    ],
)
def test_every_fault_is_told_at_its_key(channel_type: ChannelType, config: Any, fields: list[str]) -> None:
    assert _faults(channel_type, config) == fields


@pytest.mark.parametrize(
    "headers",
    [
        "X-Team: ops",
        {"webhook-id": "x"},
        {"Webhook-Signature": "x"},
        {"Host": "x"},
        {"content-length": "1"},
        {"Content-Type": "text/plain"},
        {"Connection": "close"},
        {"Transfer-Encoding": "chunked"},
        {"": "x"},
        {"X Team": "x"},
        {"X-Team:": "x"},
        {"X-Tëam": "x"},
        {"x" * 101: "x"},
        {"X-Team": 5},
        {"X-Team": "v" * 2001},
        {"X-Team": "a\r\nX-Evil: b"},
        {"X-Team": "a\0b"},
        {"X-Team": "a", "x-team": "b"},
        {f"X-{n}": "v" for n in range(21)},
    ],
)
def test_a_header_that_breaks_the_request_is_refused(headers: Any) -> None:
    assert _faults("webhook", {"url": "https://example.com/", "headers": headers}) == ["config.headers"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://localhost/",
        "http://169.254.169.254/",
        "http://10.0.0.1/",
    ],
)
def test_an_inner_target_is_refused_at_the_key_of_its_url(url: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        configs.validate("webhook", {"url": url}, STRICT)

    (fault,) = raised.value.faults
    assert (fault.field, fault.message) == ("config.url", "address is not allowed")


def test_slack_takes_plain_http_only_where_private_targets_are_allowed() -> None:
    config = {"webhookUrl": "http://127.0.0.1:8065/hooks/abc"}

    assert _faults("slack", config) == ["config.webhookUrl"]
    assert configs.validate("slack", config, PRIVATE) == config
    assert _faults("slack", {"webhookUrl": "http://169.254.169.254/"}, PRIVATE) == ["config.webhookUrl"]


def test_no_fault_repeats_a_secret() -> None:
    bad: list[tuple[ChannelType, Config]] = [
        ("slack", {"webhookUrl": "ftp://hooks.slack.com/hunter2"}),
        ("webhook", {"url": "ftp://example.com/hunter2", "secret": "hunter2", "headers": {"X-Token": "hunter2\n"}}),
        ("pagerduty", {"routingKey": "hunter2"}),
    ]

    for channel_type, config in bad:
        with pytest.raises(InvalidInput) as raised:
            configs.validate(channel_type, config, STRICT)
        assert "hunter2" not in repr(raised.value.faults)
        assert not any(fault.has_value for fault in raised.value.faults)


def test_a_fault_of_an_address_shows_what_was_refused() -> None:
    with pytest.raises(InvalidInput) as raised:
        configs.validate("email", {"to": ["good@example.com", "bad"]}, STRICT)

    assert [fault.value for fault in raised.value.faults] == ["bad"]


def test_a_generated_secret_is_valid_and_signs() -> None:
    secret = configs.generate_webhook_secret()

    assert configs.validate("webhook", {"url": "https://example.com/", "secret": secret}, STRICT)
    assert Webhook(secret) is not None
    assert secret != configs.generate_webhook_secret()


@pytest.mark.parametrize(
    ("channel_type", "config", "shown"),
    [
        ("email", {"to": "ops@example.com"}, {"to": "ops@example.com"}),
        ("sms", {"to": "+15550100200"}, {"to": "+15550100200"}),
        ("slack", {"webhookUrl": SLACK_URL}, {"webhookUrl": "https://hooks.slack.com/****WXYZ"}),
        ("slack", {"webhookUrl": "http://chat.lan:8065/abcd"}, {"webhookUrl": "http://chat.lan:8065/****abcd"}),
        (
            "webhook",
            {
                "url": "https://example.com/hook?token=abc",
                "secret": SECRET,
                "headers": {"Authorization": "Bearer abcdefgh", "X-Team": "ops"},
            },
            {
                "url": "https://example.com/hook?token=abc",
                "secret": "****NTY3",
                "headers": {"Authorization": "****efgh", "X-Team": "****"},
            },
        ),
        ("webhook", {"headers": {"A": "12345678901"}}, {"headers": {"A": "****"}}),
        ("webhook", {"headers": {"A": "123456789012"}}, {"headers": {"A": "****9012"}}),
        ("pagerduty", {"routingKey": ROUTING_KEY, "severity": "info"}, {"routingKey": "****IJ99", "severity": "info"}),
    ],
)
def test_secrets_are_masked_and_nothing_else(channel_type: ChannelType, config: Config, shown: Config) -> None:
    before = json.dumps(config)

    assert configs.masked(channel_type, config) == shown
    assert json.dumps(config) == before


def test_a_mask_sent_back_keeps_the_stored_secret() -> None:
    old = {"url": "https://example.com/a", "secret": SECRET, "headers": {"X-Token": "abcdefghijkl", "X-Short": "abc"}}
    sent = {
        "url": "https://example.com/b",
        "secret": "****NTY3",
        "headers": {"x-token": "****ijkl", "X-Short": "****", "X-New": "plain"},
    }

    merged = configs.merge("webhook", old, sent)

    assert merged == {
        "url": "https://example.com/b",
        "secret": SECRET,
        "headers": {"x-token": "abcdefghijkl", "X-Short": "abc", "X-New": "plain"},
    }


def test_a_masked_url_or_routing_key_sent_back_keeps_the_stored_one() -> None:
    slack = {"webhookUrl": SLACK_URL}
    pagerduty = {"routingKey": ROUTING_KEY}

    assert configs.merge("slack", slack, {"webhookUrl": "https://hooks.slack.com/****WXYZ"}) == slack
    assert configs.merge("pagerduty", pagerduty, {"routingKey": "****IJ99", "severity": "info"}) == {
        "routingKey": ROUTING_KEY,
        "severity": "info",
    }


@pytest.mark.parametrize(
    ("channel_type", "old", "new", "field"),
    [
        ("slack", {"webhookUrl": SLACK_URL}, {"webhookUrl": "https://hooks.slack.com/****wxyz"}, "config.webhookUrl"),
        ("slack", {"webhookUrl": SLACK_URL}, {"webhookUrl": "https://other.example/****WXYZ"}, "config.webhookUrl"),
        ("slack", {"webhookUrl": SLACK_URL}, {"webhookUrl": "****WXYZ"}, "config.webhookUrl"),
        ("webhook", {"url": "u", "secret": SECRET}, {"url": "u", "secret": "****abcd"}, "config.secret"),
        ("webhook", {"url": "u", "secret": SECRET}, {"url": "u", "headers": {"A": "****"}}, "config.headers"),
        ("webhook", {}, {"url": "u", "secret": "****NTY3"}, "config.secret"),
        ("pagerduty", {"routingKey": ROUTING_KEY}, {"routingKey": "****"}, "config.routingKey"),
    ],
)
def test_a_mask_of_something_else_is_refused(channel_type: ChannelType, old: Config, new: Config, field: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        configs.merge(channel_type, old, new)

    assert [fault.field for fault in raised.value.faults] == [field]


def test_an_omitted_webhook_secret_is_kept_and_omitted_headers_are_not() -> None:
    old = {"url": "https://example.com/", "secret": SECRET, "headers": {"A": "b"}}

    assert configs.merge("webhook", old, {"url": "https://new.example/"}) == {
        "url": "https://new.example/",
        "secret": SECRET,
    }


def test_a_new_secret_replaces_the_stored_one() -> None:
    old = {"url": "https://example.com/", "secret": SECRET}
    new = {"url": "https://example.com/", "secret": OTHER_SECRET}

    assert configs.merge("webhook", old, new) == new


def test_what_is_no_object_is_left_to_the_validation() -> None:
    assert configs.merge("slack", {"webhookUrl": SLACK_URL}, "text") == "text"
    assert _faults("webhook", configs.merge("webhook", {}, {"url": 5, "secret": 5, "headers": 5})) == [
        "config.url",
        "config.secret",
        "config.headers",
    ]


def test_sealed_settings_hold_no_secret_and_open_to_what_they_were() -> None:
    box = SecretBox("m" * 32)
    config = {
        "url": "https://example.com/hook?token=abc",
        "secret": SECRET,
        "headers": {"X-Token.v2": "abcdefgh", "X-Team": "ops"},
    }

    sealed = configs.seal_config(box, "ch_1", "webhook", config)

    stored = json.dumps(sealed)
    assert not any(text in stored for text in ("example.com", "whsec_", "abcdefgh", "ops"))
    assert stored.count("v1.") == 4
    assert configs.open_config(box, "ch_1", "webhook", sealed) == config


def test_each_type_seals_what_it_masks_and_the_url_of_a_webhook() -> None:
    webhook = {"url": "u", "secret": "s", "headers": {"X-Team": "ops"}}

    assert configs.secret_paths("webhook", webhook) == ["secret", "headers.X-Team", "url"]
    assert configs.secret_paths("slack", {"webhookUrl": SLACK_URL}) == ["webhookUrl"]
    assert configs.secret_paths("pagerduty", {"routingKey": ROUTING_KEY, "severity": "info"}) == ["routingKey"]
    assert configs.secret_paths("email", {"to": "a@example.com"}) == []
    assert configs.secret_paths("sms", {"to": "+15550100200"}) == []


def test_swapped_ciphertexts_do_not_open_and_the_rest_stays_readable() -> None:
    box = SecretBox("m" * 32)
    config = {"url": "https://example.com/", "secret": SECRET, "headers": {"A": "abcdefghijkl"}}
    sealed = configs.seal_config(box, "ch_1", "webhook", config)
    swapped = sealed | {"secret": sealed["headers"]["A"]}

    with pytest.raises(SecretUnreadable) as raised:
        configs.open_config(box, "ch_1", "webhook", swapped)

    assert raised.value.path == "secret"
    assert configs.masked_sealed(box, "ch_1", "webhook", swapped) == {
        "url": "https://example.com/",
        "secret": "****",
        "headers": {"A": "****ijkl"},
    }


def test_each_address_gets_a_notification_of_its_own() -> None:
    assert configs.addresses("email", {"to": "a@example.com"}) == ["a@example.com"]
    assert configs.addresses("sms", {"to": ["+15550100200", "+15550100201", "+15550100200"]}) == [
        "+15550100200",
        "+15550100201",
    ]
    assert configs.addresses("slack", {"webhookUrl": SLACK_URL}) == []
