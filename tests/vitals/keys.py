"""A node with the routes that need a key, for callers whose keys a test makes up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request

from lifesign.auth.rules import Unauthorized
from lifesign.envelopes.edge import Edge, answer_error
from lifesign.envelopes.failures import TABLE
from lifesign.projects import service as projects
from lifesign.vitals.routes import router_for
from tests.harness import Lifesign, client_of

KEYS = {"beam_one": 1, "beam_two": 2}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has one of the keys above."""

    key_id: int
    project_id: str


@asynccontextmanager
async def keyed(lifesign: Lifesign) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with the first key, of the routes that need one, on a node."""
    project_id = await lifesign.node.db.read(projects.id_of, "default")

    async def caller(request: Request) -> Holder:
        key_id = KEYS.get(request.headers.get("x-api-key", ""))
        if key_id is None:
            raise Unauthorized
        return Holder(key_id, project_id)

    app = FastAPI(exception_handlers=dict.fromkeys((*TABLE, HTTPException, Exception), answer_error))
    app.state = lifesign.node.api.state
    app.include_router(router_for(caller))
    async with client_of(Edge(app, lifesign.clock), None) as client:
        client.headers["X-API-Key"] = "beam_one"
        yield client
