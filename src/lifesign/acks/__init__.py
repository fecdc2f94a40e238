"""Acknowledging an incident from outside the API: by link, by Slack's button, by a text message.

Owns the table `callbacks_seen`. The links are made by `channels`, the acknowledging itself is done by `heartbeats`.
Spec "Channels", sections 3, 6 and 7.
"""
