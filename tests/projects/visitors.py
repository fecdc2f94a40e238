"""People who come without a key, each from an address of their own, and what they are told."""

import hashlib
import hmac
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import cast

import httpx2
from starlette.requests import Request
from starlette.responses import Response

from tests.harness import Json, Lifesign

SECRET = "a secret of the operator's own, for recovery and upgrade codes"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Asks from one address; `key` is sent as the whole `Authorization` header unless it is a bare token."""

    http: httpx2.AsyncClient

    async def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> httpx2.Response:
        headers = {} if key is None else {"Authorization": key if " " in key or not key else f"Bearer {key}"}
        return await self.http.request(method, path, json=body, headers=headers)

    async def told(
        self, method: str, path: str, body: object = None, *, key: str | None = None, expect: int = 200
    ) -> Json:
        """The body of an answer, whose status must be as expected."""
        answer = await self.ask(method, path, body, key=key)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        shown = cast("Json", answer.json())
        assert shown["ok"] is (expect < 400)
        return shown

    async def provision(
        self, name: str | None = None, *, key: str | None = None, expect: int = 201, **body: str
    ) -> Json:
        named = {"project_name": new_name() if name is None else name} | body
        return await self.told("POST", "/v1/provision", named, key=key, expect=expect)

    async def sign_up(self, **body: object) -> Json:
        return await self.told("POST", "/v1/signup", body, expect=201)

    async def refused(self, method: str, path: str, body: object = None, *, key: str | None = None) -> tuple[int, str]:
        """Status and `error` of a refusal."""
        answer = await self.ask(method, path, body, key=key)
        assert set(answer.json()) == {"ok", "error", "message"}, answer.text
        assert answer.json()["ok"] is False
        return answer.status_code, answer.json()["error"]


@asynccontextmanager
async def visitor(lifesign: Lifesign, address: str | None = None) -> AsyncIterator[Visitor]:
    """Somebody at an address; at one of their own when it does not matter which."""
    n = next(_numbers)
    transport = httpx2.ASGITransport(
        lifesign.node.app,
        raise_app_exceptions=False,
        client=(address or f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 50000),
    )
    async with httpx2.AsyncClient(transport=transport, base_url="http://lifesign.test") as http:
        yield Visitor(http)


def new_name() -> str:
    """A name that no other test has."""
    return f"project {next(_numbers)}"


def code_of(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


@contextmanager
def with_route(
    lifesign: Lifesign, path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str
) -> Iterator[None]:
    """One more route until the block ends: the nodes of a process share them."""
    router = lifesign.node.api.router
    lifesign.node.api.add_route(path, endpoint, methods=list(methods) or ["GET"])
    added = router.routes[-1]
    try:
        yield
    finally:
        router.routes.remove(added)
