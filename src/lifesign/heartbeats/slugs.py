"""Slugs: the names of heartbeats in addresses.  Source: spec/heartbeats.md, section 4."""

import re
import unicodedata
from collections.abc import Collection
from itertools import count
from typing import Final

# Leaves ten of the hundred characters to the number that `lowest_free` may add.
_GENERATED_LENGTH: Final = 90
_FALLBACK: Final = "heartbeat"
# A path segment that begins like this is an id.
_ID_PREFIX: Final = "hb_"

_OTHER = re.compile(r"[^a-z0-9]+")
_SLUG = re.compile(r"[a-z0-9_-]{1,100}")


def slug_from_name(name: str) -> str:
    """The slug that a name suggests: 1-90 characters of `a-z 0-9 -`, the same again for its own result."""
    letters = "".join(
        character
        for character in unicodedata.normalize("NFKD", name)
        if not unicodedata.category(character).startswith("M")
    )
    dashed = _OTHER.sub("-", letters.lower()).strip("-")
    return dashed[:_GENERATED_LENGTH].rstrip("-") or _FALLBACK


def is_valid_slug(text: str) -> bool:
    """Whether a caller may choose this slug."""
    return _SLUG.fullmatch(text) is not None and not text.startswith(_ID_PREFIX)


def lowest_free(base: str, taken: Collection[str]) -> str:
    """`base`, or else `base-2`, `base-3`, ... with the lowest number that is not taken."""
    held = frozenset(taken)
    if base not in held:
        return base
    return next(slug for number in count(2) if (slug := f"{base}-{number}") not in held)
