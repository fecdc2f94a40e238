"""Runs: executions of a watched job, each with its own lease and limit. Table `runs`.

The rows and what is true of them; what a run means for its heartbeat is decided in `heartbeats`, which is above.
Spec "Heartbeats", section 7.
"""
