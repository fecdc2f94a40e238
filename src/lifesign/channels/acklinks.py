"""Ack links: an address that lets whoever got a message acknowledge its incident, and nothing else. Pure."""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

ACK_LINKS_INFO: Final = "lifesign/ack-links/v1"
_SIGNATURE_CHARACTERS: Final = 32
_TOKEN: Final = re.compile(r"(inc_[0-9a-f]{32})\.(ch_[0-9a-f]{32})\.([A-Za-z0-9_-]{32})")
# Compared when there is nothing to compare with, so that both take as long.
_NO_SIGNATURE: Final = "-" * _SIGNATURE_CHARACTERS


class AckGrant(NamedTuple):
    """What a token allows: acknowledging this incident, in the name of this channel."""

    incident_id: str
    channel_id: str


@dataclass(frozen=True, slots=True)
class AckSigner:
    """Makes tokens with the first of `keys`, reads those made with any."""

    keys: Sequence[bytes]

    def token(self, grant: AckGrant) -> str:
        """`<incident id>.<channel id>.<32 base64url characters of HMAC-SHA256>`.  Source: spec "Channels", 7."""
        return f"{grant.incident_id}.{grant.channel_id}.{_signature(self.keys[0], grant)}"

    def read(self, token: str) -> AckGrant | None:
        """What a token grants; None when it was not made here, or was changed. Takes as long for every token."""
        found = _TOKEN.fullmatch(token)
        grant = AckGrant(found[1], found[2]) if found else AckGrant("", "")
        given = found[3] if found else _NO_SIGNATURE
        fits = [hmac.compare_digest(_signature(key, grant), given) for key in self.keys]
        return grant if found and any(fits) else None


def _signature(key: bytes, grant: AckGrant) -> str:
    mac = hmac.digest(key, f"ack|{grant.incident_id}|{grant.channel_id}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac).decode()[:_SIGNATURE_CHARACTERS]
