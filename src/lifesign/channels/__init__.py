"""Channels: where a message goes, and how each kind of channel puts it on the wire.

Owns the tables `channels`, `lanes`, `notifications` (the outbox) and `attempts`. Rules: spec "Channels", and the
delivery sections of spec "Engine".
"""
