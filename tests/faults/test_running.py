"""A real server on the machine's clock: it keeps time, keeps channels apart, and stops without losing a message."""

import time
from datetime import datetime
from pathlib import Path

from tests.faults.server import serving, until
from tests.peers.process import LedgerPeer


def test_silence_is_told_between_three_and_four_and_a_half_seconds_after_the_last_check_in(
    tmp_path: Path, ledger: LedgerPeer
) -> None:
    with serving(tmp_path) as server:
        channel = server.webhook(f"{ledger.url}/hook/ops")
        policy = server.ask(
            "POST", "/v1/policies", {"name": "p", "steps": [{"channels": [channel], "wait": 0}]}, expect=201
        )
        server.heartbeat("job", interval=2, grace=1, policy=policy["id"])
        server.ask("POST", "/v1/heartbeats/job/checkin")

        (page,) = ledger.requests("/hook/ops", at_least=1, wait_s=20)
        last = server.ask("GET", "/v1/heartbeats/job/events?type=checkin")["events"][0]

    opened = page.json["data"]["incident"]
    assert page.json["type"] == "incident.opened"
    assert 3000 <= page.at - _ms(last["createdAt"]) <= 4500
    assert _ms(opened["openedAt"]) - _ms(opened["deadline"]) >= 1000


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_a_stalling_channel_fills_its_own_slots_and_delays_no_other(tmp_path: Path, ledger: LedgerPeer) -> None:
    ledger.script("second", {"stall": 15, "times": 100})
    with serving(tmp_path) as server:
        for number in range(3):
            config = {"webhookUrl": f"{ledger.url}/slack/second"}
            slack = server.ask(
                "POST", "/v1/channels", {"name": f"s{number}", "type": "slack", "config": config}, expect=201
            )
            for turn in range(4):
                server.heartbeat(f"slow-{number}-{turn}", channels=[slack["id"]])
        for number in range(3):
            for turn in range(4):
                server.fire(f"slow-{number}-{turn}")
        # Eight slots for twelve messages: the rest waits, of its own kind only.
        stalled = ledger.requests("/slack/second", at_least=8, wait_s=20)
        assert len(stalled) == 8
        hooked = server.webhook(f"{ledger.url}/hook/ops")
        server.heartbeat("quick", channels=[hooked])

        began = time.monotonic()
        server.fire("quick")
        (page,) = ledger.requests("/hook/ops", at_least=1, wait_s=10)
        took_s = time.monotonic() - began

        assert page.json["type"] == "incident.opened"
        assert took_s < 2
        assert sorted(server.statuses()).count("sending") == 8
        assert len(ledger.requests("/slack/second")) == 8


def test_a_send_under_way_is_finished_before_the_server_stops(
    tmp_path: Path, database_url: str | None, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"stall": 2})
    with serving(tmp_path, database_url=database_url) as server:
        server.heartbeat("job", channels=[server.webhook(f"{ledger.url}/hook/ops")])
        server.fire("job")
        assert ledger.requests("/hook/ops", at_least=1, wait_s=20)
        server.terminate()
        assert server.exit_code() == 0

    with serving(tmp_path, database_url=database_url) as restarted:
        assert restarted.statuses() == ["sent"]
        # Once a later message has arrived, an earlier one that was due would have arrived as well.
        restarted.ask("POST", "/v1/heartbeats/job/checkin")
        ended = ledger.requests("/hook/ops", at_least=2, wait_s=20)
    assert [each.json["type"] for each in ended] == ["incident.opened", "incident.resolved"]


def test_a_second_signal_ends_a_server_that_still_sends(tmp_path: Path, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"stall": 15})
    with serving(tmp_path) as server:
        server.heartbeat("job", channels=[server.webhook(f"{ledger.url}/hook/ops")])
        server.fire("job")
        assert ledger.requests("/hook/ops", at_least=1, wait_s=20)

        server.terminate()
        until(lambda: "server.stopping" in server.log.read_text())
        server.terminate()

        assert server.exit_code(within_s=3) == 1


def test_a_failpoint_triggers_at_its_nth_pass_and_once(tmp_path: Path, ledger: LedgerPeer) -> None:
    with serving(
        tmp_path,
        testing=1,
        failpoints="checkin.before_commit=raise:2,claim.before_commit=raise,sweep.after_commit=sleep1",
    ) as server:
        server.heartbeat("job")

        answers = [server.request("POST", "/v1/heartbeats/job/checkin").status_code for _ in range(3)]
        assert answers == [200, 500, 200]
        assert server.ask("GET", "/v1/heartbeats/job/events?type=checkin")["events"][1:] != []
        assert len(server.ask("GET", "/v1/heartbeats/job/events?type=checkin")["events"]) == 2

        # A loop that failed goes on: the message is claimed at the next try.
        server.heartbeat("other", channels=[server.webhook(f"{ledger.url}/hook/ops")])
        server.fire("other")
        assert len(ledger.requests("/hook/ops", at_least=1, wait_s=20)) == 1
        assert "loop.failed" in server.log.read_text()
        assert server.request("GET", "/ready").status_code == 200
