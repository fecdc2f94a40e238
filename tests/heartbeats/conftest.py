from tests.shared import ledger, office, shared_node

__all__ = ["ledger", "office", "shared_node"]
