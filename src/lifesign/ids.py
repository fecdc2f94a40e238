"""Identifiers: a prefix that names the kind, and 32 hex digits of a UUIDv7; or the UUID as it is.

Written here rather than taken from a library because the time comes from our clock, and because ids made within one
millisecond must still sort in the order they were made (RFC 9562, section 6.2, method 2: monotonic random).
"""

import random
import threading
import uuid

from lifesign.clock import EpochMs

_RANDOM_BITS = 74
_STEP_BITS = 40
_LOW_BITS = 62

_lock = threading.Lock()
_last: list[int] = [0, 0]
# Ids are names, not secrets: seeded by the system once, because asking it for each id takes longer than the rest.
_random = random.Random()  # noqa: S311 - as above


def new_id(prefix: str, now: EpochMs) -> str:
    """`<prefix>_<32 hex digits>`; ids of one process sort by creation as long as the clock does not run back."""
    return f"{prefix}_{_next(now):032x}"


def new_uuid(now: EpochMs) -> str:
    """The same as a UUID of 36 characters, lower case."""
    return str(uuid.UUID(int=_next(now)))


def _next(now: EpochMs) -> int:
    with _lock:
        if now == _last[0]:
            chosen = _last[1] + 1 + _random.getrandbits(_STEP_BITS)
        else:
            # The top bit stays free, so that a millisecond has room for 2**33 steps before it could overflow.
            chosen = _random.getrandbits(_RANDOM_BITS - 1)
        _last[:] = [now, chosen]
    high, low = chosen >> _LOW_BITS, chosen & ((1 << _LOW_BITS) - 1)
    return (now << 80) | (0x7 << 76) | ((high & 0xFFF) << 64) | (0b10 << _LOW_BITS) | low
