"""Events: the history of each heartbeat, append-only. Owns the table `events`; every other slice writes through it.

A slice of its own, below the others, because heartbeats, incidents and channels all write one history.
Spec "Heartbeats", section 10.
"""
