"""What the tests of systems deliver to."""

from tests.peers.fixtures import ledger, ledger_process

__all__ = ["ledger", "ledger_process"]
