"""A node in this process, asked over its real ASGI app, with time turned by hand."""

import functools
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import httpx2
from pydantic import SecretStr
from starlette.types import ASGIApp

from lifesign.app import Node, open_node
from lifesign.clock import EpochMs, ManualClock, parse_timestamp
from lifesign.db import migrate
from lifesign.db.open import SQLITE_FILE, is_postgres, sqlite_engine
from lifesign.settings import Settings
from lifesign.telemetry.stores.open import CHAIN
from lifesign.telemetry.stores.open import SQLITE_FILE as SPANS_FILE

ADMIN_KEY = "test-admin-key-0123456789"

SETTINGS = Settings(admin_key=SecretStr(ADMIN_KEY), allow_private_targets=True, log_level="error")
"""What every node of a test has in common. Made once: looking for each variable takes longer than opening a node."""

Json = dict[str, Any]
"""An answer's body: JSON."""


class MakeLifesign(Protocol):
    """Starts a node; keyword arguments are settings."""

    def __call__(self, *, at: str = ..., **changes: object) -> AbstractAsyncContextManager["Lifesign"]: ...


@dataclass(frozen=True, slots=True)
class Lifesign:
    """A running node, its clock, and a client that holds the admin key."""

    node: Node
    clock: ManualClock
    http: httpx2.AsyncClient

    @classmethod
    @asynccontextmanager
    async def started(cls, settings: Settings, *, at: str) -> AsyncIterator["Lifesign"]:
        clock = ManualClock(parse_timestamp(at))
        _give_tables(settings)
        node = await open_node(settings, clock=clock)
        try:
            async with client_of(node.app, ADMIN_KEY) as http:
                yield cls(node, clock, http)
        finally:
            await node.driver.stop()
            await node.close()

    def now(self) -> EpochMs:
        return self.clock.now()

    async def advance(self, seconds: float = 0) -> None:
        """Turn the clock; everything that falls due on the way happens, deliveries included."""
        await self.node.driver.advance(round(seconds * 1000))

    def client(self, key: str | None) -> httpx2.AsyncClient:
        """A client with another key, or with none."""
        return client_of(self.node.app, key)

    async def ask(self, method: str, path: str, body: object = None, *, expect: int = 200, **headers: str) -> Json:
        """Ask with the admin key; the status must be as expected; the body, `{}` when there is none."""
        answer = await self.http.request(
            method, path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return cast("Json", answer.json()) if answer.content else {}

    async def heartbeat(self, name: str = "Nightly Export", **fields: object) -> Json:
        """A new heartbeat: recurring, every hour, unless said otherwise."""
        body: Json = {"name": name, "mode": "recurring"} | fields
        if body["mode"] != "scheduled":
            body.setdefault("interval", 3600)
        return await self.ask("POST", "/v1/heartbeats", body, expect=201)

    async def check_in(self, ref: str, **body: object) -> Json:
        return await self.ask("POST", f"/v1/heartbeats/{ref}/checkin", body or None)

    async def webhook(self, url: str, name: str = "hook", **config: object) -> Json:
        """A new webhook channel."""
        body = {"name": name, "type": "webhook", "config": {"url": url} | config}
        return await self.ask("POST", "/v1/channels", body, expect=201)

    async def policy(self, *steps: Json, name: str = "Standard", **fields: object) -> Json:
        """A new policy."""
        return await self.ask("POST", "/v1/policies", {"name": name, "steps": list(steps)} | fields, expect=201)

    async def get(self, ref: str) -> Json:
        return await self.ask("GET", f"/v1/heartbeats/{ref}")

    async def events(self, ref: str) -> list[Json]:
        """The history of a heartbeat, newest first."""
        return cast("list[Json]", (await self.ask("GET", f"/v1/heartbeats/{ref}/events?limit=1000"))["events"])

    async def event_types(self, ref: str) -> list[str]:
        return [event["type"] for event in await self.events(ref)]

    async def incidents(self, ref: str) -> list[Json]:
        """The incidents of a heartbeat, newest first, each with its notifications."""
        listed = (await self.ask("GET", f"/v1/incidents?heartbeat={ref}"))["incidents"]
        return [await self.ask("GET", f"/v1/incidents/{each['id']}") for each in listed]


def _give_tables(settings: Settings) -> None:
    """Write SQLite files with all tables, unless they are there: it takes less than a migration."""
    if is_postgres(settings):
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, chain in ((SQLITE_FILE, migrate.MAIN), (SPANS_FILE, CHAIN)):
        file = settings.data_dir / name
        if not file.exists():
            file.write_bytes(_migrated_file(chain))


@functools.cache
def _migrated_file(chain: migrate.Chain) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "migrated.db"
        engine = sqlite_engine(file, gives_back=chain is CHAIN)
        migrate.upgrade(engine, chain)
        engine.dispose()
        return file.read_bytes()


def client_of(app: ASGIApp, key: str | None) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://lifesign.test", headers=headers)
