"""Leaving the garbage collector out of work that makes much and no cycles."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_SELDOM: Final = (50_000, 20, 100)
_lock = threading.Lock()
_before: list[tuple[int, int, int]] = []


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """What is made meanwhile, in any thread, is looked at seldom for what is garbage.

    An examination makes hundreds of thousands of records that live until it ends; walking all of them again and again
    took a fifth of its time, during which no other thread runs.
    """
    with _lock:
        _before.append(gc.get_threshold())
        gc.set_threshold(*_SELDOM)
    try:
        yield
    finally:
        with _lock:
            # The first of them knows how it was; whoever ends last restores it.
            first = _before[0]
            _before.pop()
            if not _before:
                gc.set_threshold(*first)
