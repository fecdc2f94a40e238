"""What the tests of pings deliver to."""

from tests.peers.fixtures import ledger, ledger_process

__all__ = ["ledger", "ledger_process"]
