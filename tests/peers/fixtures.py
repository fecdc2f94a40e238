"""Fixtures of the peers, imported by the `conftest.py` of every directory whose tests deliver something."""

import smtplib
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from lifesign.settings import Settings
from tests.peers.process import LedgerPeer, ledger_peer
from tests.peers.smtp import SmtpPeer, smtp_peer

ROUTING_KEY = "0123456789abcdefghijABCDEFGHIJ12"
TWILIO_SID = "AC0123456789abcdef0123456789abcdef"
TWILIO_TOKEN = "twilio-auth-token-1"
ENQUEUE = "/v2/enqueue"
MESSAGES = f"/2010-04-01/Accounts/{TWILIO_SID}/Messages.json"

_SCRIPTED = ("ops", "second", "third", "pagerduty", "twilio")


@pytest.fixture(scope="session")
def ledger_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerPeer]:
    with ledger_peer(tmp_path_factory.mktemp("ledger")) as peer:
        yield peer


@pytest.fixture
def ledger(ledger_process: LedgerPeer) -> LedgerPeer:
    """An empty ledger that plays no tricks. Scripts are for `ops`, `second`, `third`, `pagerduty` and `twilio`."""
    ledger_process.clear()
    for name in _SCRIPTED:
        ledger_process.script(name)
    return ledger_process


@pytest.fixture(scope="session")
def smtp_process() -> Iterator[SmtpPeer]:
    with smtp_peer("--no-starttls") as peer:
        yield peer


@pytest.fixture
def mail(smtp_process: SmtpPeer) -> SmtpPeer:
    """A mail server without a mail."""
    smtp_process.script()
    # The peer reads its script at each connection: this one makes it forget how far the last test had come.
    with smtplib.SMTP("127.0.0.1", smtp_process.port):
        pass
    for path in smtp_process.directory.iterdir():
        path.unlink()
    return smtp_process


@pytest.fixture
def settings(settings: Settings, ledger: LedgerPeer) -> Settings:
    """The settings of the root, with the ledger in the place of every vendor."""
    return settings.model_copy(
        update={
            "pagerduty_url": ledger.url,
            "twilio_url": ledger.url,
            "twilio_account_sid": TWILIO_SID,
            "twilio_auth_token": SecretStr(TWILIO_TOKEN),
            "twilio_from": "+15550100999",
        }
    )
