"""Long lists, a part at a time: one statement takes 32,766 parameters on SQLite and 65,535 on PostgreSQL."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def batches(values: Sequence[T], at_once: int = 1000) -> Iterator[Sequence[T]]:
    """These values in their order, so many at once; the last are fewer."""
    return (values[start : start + at_once] for start in range(0, len(values), at_once))
