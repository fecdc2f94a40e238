"""Usage: the log of requests to the Vitals API, its dashboards, and the self-service keys as people ask for them.

Owns the tables `usage_minutes` and `usage_latency`, their sums `usage_hours` and `usage_latency_days`, and
`usage_errors`; the keys themselves are in `auth.vitals`. Spec "Usage".

`counted.py` stands around the whole app and hands each request of this API to `log.py`, which keeps it in memory for a
moment and writes sums. No row is ever kept of a single request.
"""
