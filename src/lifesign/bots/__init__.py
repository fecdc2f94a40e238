"""Bots: AI agents that run a prompt on a schedule. On the wire a schedule is called "heartbeat"; everywhere else not.

Owns the tables `bots` and `bot_*`. Spec "Bots".
"""
