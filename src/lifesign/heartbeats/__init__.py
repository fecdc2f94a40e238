"""Heartbeats: what must check in, when it is expected, and what a check-in, a pause or an edit does to that.

Owns the tables `heartbeats` and `idempotency_keys`. Spec: "Heartbeats API".
"""
