"""Events in words, with how they look. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from lifesign.clock import EpochMs

_WORDS: Mapping[str, tuple[str, str]] = {
    "created": ("", "Made"),
    "updated": ("", "Changed"),
    "checkin": ("alive", "Checked in"),
    "checkin_unhealthy": ("firing", "Checked in, unhealthy"),
    "missed": ("late", "Missed a check-in"),
    "firing": ("firing", "Fired"),
    "step_notified": ("firing", "Step taken"),
    "escalation_finished": ("late", "The last step was taken"),
    "failover": ("late", "Nobody was reached: the next step came early"),
    "unattended": ("late", "Nobody attends to it"),
    "notify_sent": ("", "Message delivered"),
    "notify_failed": ("late", "Message not delivered"),
    "blind": ("idle", "Lifesign itself was down"),
    "repaired": ("", "Put right by the auditor"),
    "flapping": ("late", "Flapping: told to nobody until it is calm"),
    "flapping_ended": ("", "Calm again"),
    "resolved": ("alive", "Recovered"),
    "acked": ("held", "Acknowledged"),
    "paused": ("idle", "Paused"),
    "resumed": ("", "Resumed"),
    "snoozed": ("held", "Snoozed"),
    "snooze_ended": ("", "Snooze over"),
    "run_started": ("", "Run started"),
    "run_finished": ("alive", "Run finished"),
    "run_failed": ("firing", "Run failed"),
    "run_stalled": ("firing", "Run stalled"),
    "run_overdue": ("firing", "Run takes too long"),
    "log": ("", "Log"),
    "ignored": ("idle", "Ping ignored"),
    "policy_detached": ("late", "Its policy was deleted"),
    "channel_detached": ("late", "A channel of it was deleted"),
    "dependency_removed": ("", "A heartbeat that it depended on was deleted"),
}
# Ids that say something to programs only.
_LEFT_OUT = frozenset({"key", "incident", "channel", "channels"})


@dataclass(frozen=True, slots=True)
class Told:
    """One event. person: who did it, where that is known; details: what else is known of it, each with its name."""

    seq: int
    at: EpochMs
    look: str
    words: str
    person: str
    details: tuple[tuple[str, str], ...]


def told(seq: int, kind: str, metadata: str, at: EpochMs, *, people: Mapping[str, str]) -> Told:
    """An event in words. metadata: JSON text; people: addresses by the id of their user."""
    look, words = _WORDS.get(kind, ("", kind.replace("_", " ").capitalize()))
    members: dict[str, Any] = orjson.loads(metadata)  # Any: JSON
    person = people.get(str(members.get("key")), "")
    details = tuple((_name(name), _text(value)) for name, value in members.items() if _is_told(name, value))
    return Told(seq, at, look, words, person, details)


def _is_told(name: str, value: Any) -> bool:  # Any: JSON
    # Most come by the API, of which nothing need be said.
    return name not in _LEFT_OUT and (name, value) != ("via", "api")


def actor_in(metadata: str) -> str:
    """The id of whoever did something; empty: nobody did."""
    return str(orjson.loads(metadata).get("key", ""))


def _name(name: str) -> str:
    return "".join(f" {each.lower()}" if each.isupper() else each for each in name)


def _text(value: Any) -> str:  # Any: JSON
    return value if isinstance(value, str) else orjson.dumps(value).decode()
