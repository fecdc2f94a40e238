"""What a route is given: the settings, the clock and the database of this node."""

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


def context_of(request: Request) -> Context:
    """The context of the app that serves `request`."""
    return cast("Context", request.app.state.context)
