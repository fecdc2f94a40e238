"""Which of two versions of a service is newer, as far as texts tell."""

import re
from typing import Final

_VERSION = re.compile(r"v?(\d{1,18})(?:\.(\d{1,18}))?(?:\.(\d{1,18}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?\Z")
_Part = tuple[int, int, str]
_RELEASE: Final[tuple[_Part, ...]] = ((2, 0, ""),)


def is_at_least(version: str | None, fixed: str | None) -> bool:
    """Whether a version has a fix. When either is unknown, or no version number, nothing speaks against it."""
    if not version or not fixed:
        return True
    order, order_fixed = _order(version), _order(fixed)
    return order is None or order_fixed is None or order >= order_fixed


def highest(versions: list[str]) -> str | None:
    """The newest; texts that are no version number come before all others."""
    return max(versions, key=lambda each: (_order(each) or ((), ()), each), default=None)


def _order(version: str) -> tuple[tuple[int, ...], tuple[_Part, ...]] | None:
    """Source: Semantic Versioning 2.0.0, section 11."""
    found = _VERSION.match(version.strip())
    if found is None:
        return None
    *numbers, before = found.groups()
    parts = _RELEASE if before is None else tuple(_part(each) for each in before.split("."))
    return tuple(int(each or 0) for each in numbers), parts


def _part(text: str) -> _Part:
    return (0, int(text), "") if text.isascii() and text.isdigit() else (1, 0, text)
