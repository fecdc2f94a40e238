"""Failing deliveries of every kind, at the most talkative log level, leave no secret anywhere."""

from pathlib import Path

from tests.faults.server import Server, serving, until
from tests.harness import Json
from tests.peers.fixtures import ROUTING_KEY, TWILIO_SID, TWILIO_TOKEN
from tests.peers.process import LedgerPeer
from tests.peers.smtp import SmtpPeer

SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA=="
HEADER_TOKEN = "hunter2-hunter2"
SMTP_PASSWORD = "mail-password-0815"
URL_PATHS = ("hook-path-secret", "slack-path-secret")


def test_failed_deliveries_leave_no_secret_in_logs_files_or_answers(
    tmp_path: Path, ledger: LedgerPeer, mail: SmtpPeer
) -> None:
    # Each receiver, scripted by the last part of its path, repeats in its answer the secrets that it was sent.
    echoes = {
        "hook-path-secret": f"{SIGNING_SECRET} {HEADER_TOKEN} at {ledger.url}/hook/hook-path-secret",
        "slack-path-secret": f"POST /slack/slack-path-secret or {ledger.url}/slack/slack-path-secret",
        "pagerduty": ROUTING_KEY,
        "twilio": TWILIO_TOKEN,
    }
    for name, said in echoes.items():
        ledger.script(name, {"status": 500, "body": f"cannot use {said}", "times": 100})
    with serving(
        tmp_path,
        log_level="debug",
        pagerduty_url=ledger.url,
        twilio_url=ledger.url,
        twilio_account_sid=TWILIO_SID,
        twilio_auth_token=TWILIO_TOKEN,
        twilio_from="+15550100999",
        smtp_host="127.0.0.1",
        smtp_port=mail.port,
        smtp_tls="none",
        smtp_username="lifesign",
        smtp_password=SMTP_PASSWORD,
    ) as server:
        made = [
            server.ask("POST", "/v1/channels", {"name": kind, "type": kind, "config": config}, expect=201)["id"]
            for kind, config in (
                (
                    "webhook",
                    {
                        "url": f"{ledger.url}/hook/hook-path-secret",
                        "secret": SIGNING_SECRET,
                        "headers": {"X-Token": HEADER_TOKEN},
                    },
                ),
                ("slack", {"webhookUrl": f"{ledger.url}/slack/slack-path-secret"}),
                ("pagerduty", {"routingKey": ROUTING_KEY}),
                ("sms", {"to": "+15550100200"}),
                ("email", {"to": "ops@example.com"}),
            )
        ]
        server.heartbeat("job", channels=made)
        server.fire("job")
        until(lambda: all(each["attempts"] and "outcome" in each["attempts"][0] for each in _rows(server)))
        for channel in made:
            assert server.ask("POST", f"/v1/channels/{channel}/test")["ok"] is False
        answers = [
            server.request("GET", path).text
            for path in (
                "/v1/notifications",
                "/v1/channels",
                "/v1/heartbeats/job/events",
                "/v1/incidents",
                "/metrics",
                "/ready",
            )
        ]
        server.terminate()
        assert server.exit_code() == 0

    log = server.log.read_text()
    # The gateway takes one text a second, so that the test of that channel may not have left.
    assert log.count("notification.attempted") >= 9
    # The address of a webhook is shown to those who may read channels; it is kept from everything else.
    shown = "\n".join(answers).replace(f"{ledger.url}/hook/hook-path-secret", "")
    secrets = (SIGNING_SECRET, HEADER_TOKEN, ROUTING_KEY, TWILIO_TOKEN, SMTP_PASSWORD, *URL_PATHS)
    assert [each for each in secrets if each in log] == []
    assert [each for each in secrets if each in server.output.read_text()] == []
    assert [each for each in secrets if each in shown] == []
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("lifesign.db*"))
    assert made[0].encode() in stored
    assert [each for each in secrets if each.encode() in stored] == []


def _rows(server: Server) -> list[Json]:
    rows: list[Json] = server.ask("GET", "/v1/notifications")["notifications"]
    return rows
