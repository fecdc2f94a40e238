"""Visits of the dashboard: a browser has shown the key of a project, and need not show it again for a while. Pure.

The cookie names the key and holds nothing of it. Each request looks the key up, so that its end is that of the visit.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from lifesign.clock import EpochMs

VISITS_INFO: Final = "lifesign/visits/v1"
VISIT_MS: Final = 12 * 3_600_000
_TOKEN: Final = re.compile(r"([a-z0-9_-]{1,100})\.(key_[0-9a-f]{32})\.([0-9]{1,15})\.([0-9a-f]{64})")
# Compared when there is nothing to compare with, so that both take as long.
_NO_SIGNATURE: Final = "-" * 64


class Visit(NamedTuple):
    """The key that was shown, and when it has to be shown again."""

    project_id: str
    key_id: str
    ends_at: EpochMs


@dataclass(frozen=True, slots=True)
class VisitSigner:
    """Makes tokens with the first of `keys`, reads those made with any."""

    keys: Sequence[bytes]

    def token(self, visit: Visit) -> str:
        """`<project id>.<key id>.<end in ms>.<64 hex characters of HMAC-SHA256>`.  Source: spec "Telemetry", 7."""
        return f"{_told(visit)}.{_signature(self.keys[0], visit)}"

    def read(self, token: str, now: EpochMs) -> Visit | None:
        """The visit of a token; None when it was not made here, was changed, or is over."""
        found = _TOKEN.fullmatch(token)
        visit = Visit(found[1], found[2], EpochMs(int(found[3]))) if found else Visit("", "", EpochMs(0))
        given = found[4] if found else _NO_SIGNATURE
        fits = [hmac.compare_digest(_signature(key, visit), given) for key in self.keys]
        return visit if found and any(fits) and now < visit.ends_at else None


def _told(visit: Visit) -> str:
    return f"{visit.project_id}.{visit.key_id}.{visit.ends_at}"


def _signature(key: bytes, visit: Visit) -> str:
    return hmac.digest(key, f"visit|{_told(visit)}".encode(), hashlib.sha256).hex()
