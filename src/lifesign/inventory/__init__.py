"""Inventories: what systems say they consist of, and what changed since they last said it.

Owns the tables `inventory_snapshots` and `inventory_changes`. Who may send one is decided in `systems`, which is above.
Spec "Systems", section 6.
"""
