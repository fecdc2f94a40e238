"""Messages on their way out: webhooks and mails through the outbox, and what one decision costs."""

import tempfile
import time
import timeit
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx2
from sqlalchemy import Connection, Engine, func, select

from benchmarks.expiry import policy_telling, reading
from benchmarks.report import Figure, Goal
from benchmarks.stage import (
    DATABASES,
    DatabaseKind,
    Options,
    clock,
    fill,
    fresh_settings,
    insert_heartbeats,
    serving,
)
from lifesign.channels import email, pagerduty, slack, sms, webhook
from lifesign.channels.config import generate_webhook_secret
from lifesign.channels.email import Reply
from lifesign.channels.guard import policy_of
from lifesign.channels.sender import HttpReply
from lifesign.channels.targets import GuardPolicy, is_allowed, literal_address
from lifesign.clock import EpochMs
from lifesign.db import schema
from lifesign.settings import Settings
from tests.channels.samples import context, message
from tests.peers.process import ledger_peer
from tests.peers.smtp import smtp_peer

_S = 1000
_LEAD_S = 4.0
_GIVE_UP_S = 120.0
_LOOK_AGAIN_S = 0.02
_CALLS = 500
_MAILS_EACH, _MOST_ADDRESSES = 10, 10


def run(options: Options) -> list[Figure]:
    through = [figure for kind in DATABASES for figure in (_webhooks(kind, options), _mails(kind, options))]
    return through + _decisions(options)


# Through the outbox -------------------------------------------------------------------------------------------------
def _webhooks(kind: DatabaseKind, options: Options) -> Figure:
    took = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory, ledger_peer(Path(directory)) as peer:
            hook = {"name": "hook", "type": "webhook", "config": {"url": f"{peer.url}/hook/bench"}}
            took.append(_sent_within_s(kind, options.webhooks, hook, messages=options.webhooks))
            arrived = len(peer.requests("/hook/bench"))
            assert arrived == options.webhooks, f"{arrived} of {options.webhooks} webhooks arrived"
    return Figure(f"{kind}: {options.webhooks:,} webhooks to one peer, from the deadline", took, "s", Goal(10))


def _mails(kind: DatabaseKind, options: Options) -> Figure:
    took = []
    for _ in range(options.rounds):
        with smtp_peer("--no-starttls") as peer:
            # Ten mails to each of many addresses: more to one would become a digest.
            people = options.mails // _MAILS_EACH
            addresses = [f"ops-{n}@example.com" for n in range(people)]
            mails = [
                {"name": "mail", "type": "email", "config": {"to": addresses[n : n + _MOST_ADDRESSES]}}
                for n in range(0, people, _MOST_ADDRESSES)
            ]
            variables = {"LIFESIGN_EMAIL_PER_MINUTE": "60000", "LIFESIGN_STORM_MIN": "0"}
            variables |= {"LIFESIGN_SMTP_HOST": "127.0.0.1", "LIFESIGN_SMTP_PORT": str(peer.port)}
            variables |= {"LIFESIGN_SMTP_TLS": "none", "LIFESIGN_SMTP_FROM": "lifesign@example.com"}
            took.append(_sent_within_s(kind, _MAILS_EACH, *mails, messages=options.mails, **variables))
            arrived = len(peer.envelopes())
            assert arrived == options.mails, f"{arrived} of {options.mails} mails arrived"
    return Figure(f"{kind}: {options.mails} mails to one SMTP peer, from the deadline", took, "s", Goal(10))


def _sent_within_s(
    kind: DatabaseKind, count: int, *channels: Mapping[str, object], messages: int, **variables: str
) -> float:
    """Seconds from one common deadline of `count` heartbeats until the last of their messages was accepted."""
    deadline = 0

    def rows(conn: Connection, now: EpochMs) -> None:
        nonlocal deadline
        deadline = now + round(_LEAD_S * _S)
        insert_heartbeats(conn, now, count, fires_at=lambda _: deadline, policy_id=policy_id)

    with fresh_settings(kind) as settings, reading(settings) as engine:
        with serving(settings, **variables) as server, server.client() as http:
            policy_id = policy_telling(http, *channels)
        fill(settings, rows)
        with serving(settings, **variables) as server:
            assert httpx2.get(f"{server.url}/health").is_success
            if clock.now() > deadline:
                raise RuntimeError("the deadline passed before the server was up")
            _wait_until_sent(engine, messages)
            with engine.begin() as conn:
                last = conn.scalar(select(func.max(schema.notifications.c.finished_at))) or 0
    return (last - deadline) / _S


def _wait_until_sent(engine: Engine, count: int) -> None:
    n = schema.notifications.c
    sent = select(func.count()).where(n.status == "sent", n.finished_at.is_not(None))
    give_up_at = time.monotonic() + _GIVE_UP_S
    while time.monotonic() < give_up_at:
        with engine.begin() as conn:
            if (conn.scalar(sent) or 0) >= count:
                return
        time.sleep(_LOOK_AGAIN_S)
    raise RuntimeError(f"{count} messages were not sent within {_GIVE_UP_S:.0f} s")


# Decisions ----------------------------------------------------------------------------------------------------------
def _decisions(options: Options) -> list[Figure]:
    settings = Settings(
        twilio_account_sid="AC1", twilio_from="+15005550006", smtp_from="lifesign@example.com", admin_key=None
    )
    page, attempt = message(), context(settings)
    hook = {"url": "https://hooks.example.com/x", "secret": generate_webhook_secret()}
    calls: dict[str, Callable[[], object]] = {
        "webhook": lambda: (webhook.build(page, hook, attempt), webhook.judge(HttpReply(200, {}, b""), attempt.now)),
        "slack": lambda: (
            slack.build(page, {"webhookUrl": "https://hooks.slack.com/services/T/B/x"}, attempt),
            slack.judge(HttpReply(200, {}, b"ok"), attempt.now),
        ),
        "pagerduty": lambda: (
            pagerduty.build(page, {"routingKey": "0" * 32}, attempt),
            pagerduty.judge(HttpReply(202, {}, b"{}"), "inc_1", attempt.now),
        ),
        "sms": lambda: (
            sms.build(page, {}, attempt),
            sms.judge(HttpReply(201, {}, b'{"sid":"SM1","status":"queued"}'), attempt.now),
        ),
        "email": lambda: (email.build(page, {}, attempt), email.judge(Reply("final_dot", 250, "ok"))),
    }
    figures = [
        Figure(f"{name}: build and judge", _each_us(call, options.rounds), "us", Goal(200))
        for name, call in calls.items()
    ]
    policy = policy_of(settings)
    return [
        *figures,
        Figure("guard: a literal address", _each_us(lambda: _decide(policy), options.rounds), "us", Goal(20)),
    ]


def _decide(policy: GuardPolicy) -> bool:
    address = literal_address("169.254.169.254")
    assert address is not None
    return is_allowed(address, policy)


def _each_us(call: Callable[[], object], rounds: int) -> list[float]:
    call()
    return [timeit.timeit(call, number=_CALLS) / _CALLS * 1_000_000 for _ in range(rounds)]
