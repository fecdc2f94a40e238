"""Incidents: one outage from firing to resolved, the policies that say whom to tell, the timers that make it so.

Owns the tables `incidents`, `timers` and `policies`. Spec: "Engine".
"""
