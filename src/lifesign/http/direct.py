"""Requests that come so often that the layers between the parser and the writer would be most of what they cost.

A direct route looks at a whole request at once, without a task, and says what there is to be written; the protocol
(`lifesign.http.protocol`) hands that to the writer and sends the answer when it is on disk. Whatever is not plainly
right takes the ordinary way, which knows every error and tells it: a direct route never refuses anything.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection
from starlette.responses import Response

from lifesign.db.patience import Patience
from lifesign.http.context import first_of


class Asked(NamedTuple):
    """A request that has been read to its end. path: without anything that had to be unquoted; there is no query."""

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    peer: str
    scheme: str

    def header(self, name: bytes) -> bytes | None:
        """The first header with this lower-case name."""
        return first_of(self.headers, name)


def _raise(error: Exception) -> Response | None:
    raise error


# Any: each route writes items of its own type and tells results of its own type; the two belong together in one place.
class Work(NamedTuple):
    """What a request comes down to.

    record: as `Database.write_batched` takes it. told: the answer to the result of `item`. failed: the answer to an
    exception in its place; None: the ordinary route has to look at the request from the start, and nothing was written.
    What either raises is told as if the ordinary route had raised it.
    """

    record: Callable[[Connection, Sequence[Any]], Sequence[Any]]
    item: Any
    told: Callable[[Any], Response]
    failed: Callable[[Exception], Response | None] = _raise


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """One of them.

    pattern: of the whole target of a request, path and query; only what needs no unquoting may match. most_bytes: of a
    body. work: what to write, or None when the ordinary way has to look at it. patience: how long an answer may take.
    """

    methods: frozenset[bytes]
    pattern: re.Pattern[bytes]
    most_bytes: int
    work: Callable[[Asked], Work | None]
    patience: Callable[[], Patience | None] = lambda: None
