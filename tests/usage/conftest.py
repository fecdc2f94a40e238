from tests.shared import ledger, shared_node

__all__ = ["ledger", "shared_node"]
