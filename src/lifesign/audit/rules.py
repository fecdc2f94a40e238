"""What is written down of whom, and what is not: check-ins and other reports, of which there are millions."""

import re
from dataclasses import dataclass
from typing import Literal

from lifesign.clock import EpochMs

Via = Literal["page", "api", "cli"]

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
KEPT_MS = 365 * 86_400_000
MAX_PATH = 500
# Of a job or a machine about itself, by whatever key.
_REPORTS = re.compile(
    r"/v1/heartbeats/[^/]+/(checkin|runs(/.*)?|log)|/v1/traces|/v1/bot/runs/.*|/api/systems/(heartbeat|inventory)"
    r"|/heartbeats/[^/]+/checkin|/ping/.*|/(signin|signout|theme|zone|account/project)"
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: `user:ADDRESS`, `key:NAME (its first characters)`, or `operator`. id: of the user or key."""

    project_id: str
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Line:
    """One write."""

    seq: int
    at: EpochMs
    actor: str
    via: Via
    method: str
    path: str


def is_written_down(method: str, path: str) -> bool:
    """Whether a request that writes leaves a line."""
    return method in WRITES and _REPORTS.fullmatch(path) is None
