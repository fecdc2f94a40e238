"""Statements are worked out once for all nodes of a test process, not once for each.

SQLAlchemy keeps what it made of a statement with the engine that it was made for. A real node has its engines for
weeks; here a node lives for one test, and would spend half of it on statements that the node before knew.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import pytest
from sqlalchemy import Engine

from lifesign.db import open as opening

_MAKERS = {
    "lifesign.db.open": ("sqlite_engine", "postgres_engine"),
    "lifesign.telemetry.stores.open": ("sqlite_engine", "postgres_engine_at"),
}

P = ParamSpec("P")


@contextmanager
def kept() -> Iterator[None]:
    """For the time of the block, every engine of one kind knows what the first of them has learned."""
    with pytest.MonkeyPatch.context() as patch:
        for module, names in _MAKERS.items():
            for name in names:
                patch.setattr(f"{module}.{name}", _keeping(getattr(opening, name)))
        yield


def _keeping(make: Callable[P, Engine]) -> Callable[P, Engine]:
    first: dict[object, Engine] = {}

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Engine:
        engine = make(*args, **kwargs)
        known = first.setdefault(kwargs.get("read_only", False), engine)
        # What is kept is found by dialect as well as by statement, so the dialect has to be the same one.
        engine.dialect = known.dialect
        engine._compiled_cache = known._compiled_cache  # noqa: SLF001 - the only way to keep the bound that it has
        return engine

    return made
