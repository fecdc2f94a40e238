"""Numbers that stand for texts where only equality matters: operations, arguments, results.

First 8 bytes of SHA-256, as a signed number, which is what databases have; the same on every machine and never 0.
"""

import hashlib
import json
import re
from functools import lru_cache
from typing import Any, Final

import orjson

from lifesign.telemetry.masks import masked_operation

_HASH_BYTES: Final = 8
_REMEMBERED: Final = 4096
# A number that may be written in several ways, or that is beyond 64 bits.
_UNUSUAL_NUMBER = re.compile(r"\d[.eE]|\d{19}")


def hashed(text: str) -> int:
    """The number of a text."""
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:_HASH_BYTES]
    return int.from_bytes(digest, signed=True) or 1


@lru_cache(maxsize=_REMEMBERED)
def operation_hash(kind: str, operation: str) -> int:
    """The number of an operation key: the kind, and the operation without what is particular to one call."""
    return hashed(f"{kind}\x1f{masked_operation(operation)}")


def canonical(value: Any) -> str:  # Any: JSON, or text that may be JSON
    """Text that is equal for equal values: of JSON without blanks, with sorted keys and numbers written in one way."""
    try:
        if not isinstance(value, str):
            return _canonical_json(orjson.dumps(value).decode())
        return _canonical_json(value)
    except (ValueError, TypeError, RecursionError):
        return value.strip() if isinstance(value, str) else str(value)


def _canonical_json(text: str) -> str:
    # Three times as fast, and equal where no number needs care.
    if not _UNUSUAL_NUMBER.search(text):
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    plain = json.loads(text, parse_float=_number, parse_constant=_refused)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _refused(name: str) -> None:
    """NaN and Infinity are no JSON, although Python reads them."""
    raise ValueError(name)


def _number(text: str) -> int | float | str:
    number = float(text)
    if number.is_integer():
        return int(number)
    return number if abs(number) != float("inf") else text
