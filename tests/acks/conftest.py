"""What the tests of the engine deliver to."""

from tests.peers.fixtures import ledger, ledger_process, mail, settings, smtp_process

__all__ = ["ledger", "ledger_process", "mail", "settings", "smtp_process"]
