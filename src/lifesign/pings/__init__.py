"""Pings: the surface that clients of Healthchecks speak, over heartbeats, runs, incidents and events.

Owns the tables `ping_bodies` and `ping_rids`. Spec: "Pings".
"""
