"""People who build on the Vitals API: they take a key, ask with it, and look at what the server counted."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import httpx2
from starlette.requests import Request
from starlette.responses import Response

from lifesign.http.answers import json_answer
from tests.harness import Json, Lifesign
from tests.projects.visitors import with_route

_numbers = itertools.count(1)
TRIAL = "/api/vitals/trial"


def new_email() -> str:
    """An address that no other test has."""
    return f"builder{next(_numbers)}@x.io"


@dataclass(frozen=True, slots=True)
class Builder:
    """Somebody with a key; `key` is sent unless a call says otherwise."""

    http: httpx2.AsyncClient
    id: int
    key: str
    email: str

    async def ask(self, method: str, path: str, **told: object) -> httpx2.Response:
        headers = {"X-API-Key": self.key} | cast("dict[str, str]", told.pop("headers", {}))
        return await self.http.request(method, path, headers=headers, **told)  # type: ignore[arg-type]  # as httpx2 takes them

    async def told(self, path: str) -> Json:
        """What a dashboard says, which must say something."""
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["success"] is True
        return cast("Json", answer.json())

    async def overview(self) -> Json:
        return cast("Json", (await self.told("/api/dashboard/overview"))["overview"])

    async def last_24h(self) -> int:
        return int((await self.overview())["requests"]["last_24h"])

    async def metrics(self, of: str) -> Json:
        return await self.told(f"/api/dashboard/metrics?range={of}")

    async def errors(self, query: str = "") -> Json:
        return await self.told(f"/api/dashboard/recent-errors{query}")

    async def own(self) -> Json:
        return cast("Json", (await self.told("/api/keys/me"))["api_key"])


async def take_key(
    http: httpx2.AsyncClient, email: str, *, name: str = "Jane Smith", **body: object
) -> httpx2.Response:
    return await http.post("/api/keys", json={"name": name, "email": email} | body)


@asynccontextmanager
async def builder(lifesign: Lifesign, email: str | None = None) -> AsyncIterator[Builder]:
    """Somebody who has just taken a key."""
    async with lifesign.client(None) as http:
        address = email or new_email()
        answer = await take_key(http, address)
        assert answer.status_code == 201, answer.text
        made = answer.json()["api_key"]
        yield Builder(http, made["id"], made["key"], address)


@asynccontextmanager
async def trial_route(
    lifesign: Lifesign, endpoint: Callable[[Request], Awaitable[Response]] | None = None, path: str = TRIAL
) -> AsyncIterator[None]:
    """One more path of the Vitals API until the block ends, which is answered with 200 unless said otherwise."""

    async def answered(_: Request) -> Response:
        return json_answer({"success": True})

    with with_route(lifesign, path, endpoint or answered, "GET", "POST"):
        yield
