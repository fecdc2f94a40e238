"""What a route is given: the settings, the clock and the database of this node."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from starlette.requests import Request

from lifesign.clock import Clock, EpochMs
from lifesign.db import Database
from lifesign.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """One per node, held in `app.state.context`."""

    settings: Settings
    clock: Clock
    db: Database

    def now(self) -> EpochMs:
        """The node's clock."""
        return self.clock.now()


def header_of(request: Request, name: bytes) -> bytes | None:
    """The first header with this lower-case name, straight from the request.

    For hot routes: building Starlette's view of all headers takes longer than knowing the caller.
    """
    return first_of(request.scope["headers"], name)


def first_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first of these headers with this lower-case name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def base_url(request: Request) -> str:
    """The address people reach this server at: the one that was set, or the one that was asked, without a slash."""
    context = context_of(request)
    if context.settings.public_url:
        return context.settings.public_url
    host = header_of(request, b"host") or b"localhost"
    return f"{request.scope['scheme']}://{host.decode('latin-1')}"


def context_of(request: Request) -> Context:
    """The context of the app that serves `request`."""
    return cast("Context", request.app.state.context)
