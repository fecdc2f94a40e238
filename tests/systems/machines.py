"""Machines as tests play them: what they send, and what they are answered."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx2

from tests.harness import Json, Lifesign


def basic(username: str | bytes, secret: str | bytes) -> str:
    """An `Authorization` header."""
    user = username.encode() if isinstance(username, str) else username
    word = secret.encode() if isinstance(secret, str) else secret
    return "Basic " + base64.b64encode(user + b":" + word).decode()


@dataclass(frozen=True, slots=True)
class Machine:
    """A system with its credentials."""

    lifesign: Lifesign
    made: Json

    @property
    def id(self) -> str:
        return cast("str", self.made["id"])

    @property
    def key(self) -> str:
        return cast("str", self.made["key"])

    @property
    def secret(self) -> str:
        return cast("str", self.made["secret"])

    @property
    def heartbeat_id(self) -> str:
        return cast("str", self.made["heartbeat_id"])

    @property
    def auth(self) -> str:
        return basic(self.id, self.secret)

    async def send(
        self, body: object = None, *, auth: str | None = None, content: bytes | None = None, path: str = "heartbeat"
    ) -> httpx2.Response:
        """Send a heartbeat: of itself, unless said otherwise."""
        headers = {"Authorization": self.auth if auth is None else auth}
        if content is None and body is None:
            body = {"system_id": self.id}
        async with self.lifesign.client(None) as http:
            return await http.post(f"/api/systems/{path}", json=body, content=content, headers=headers)

    async def beat(self) -> Json:
        """A heartbeat that is taken; the answer's `data`."""
        answer = await self.send()
        assert answer.status_code == 200, answer.text
        return cast("Json", answer.json()["data"])

    async def read(self) -> Json:
        """The system, as people see it."""
        return cast("Json", await asked(self.lifesign, "GET", f"/{self.id}"))


async def asked(
    lifesign: Lifesign, method: str, path: str, body: object = None, *, expect: int = 200
) -> Any:  # Any: JSON, which the test judges
    """The `data` of an answer of the admin API."""
    answer = await lifesign.ask(method, f"/api/systems{path}", body, expect=expect)
    assert answer["code"] == expect
    return answer["data"]


async def refused(
    lifesign: Lifesign, method: str, path: str, body: object = None
) -> tuple[int, list[Mapping[str, str]]]:
    """Status and faults of an answer of the admin API."""
    answer = await lifesign.http.request(method, f"/api/systems{path}", json=body)
    said = answer.json()
    assert said["code"] == answer.status_code
    return answer.status_code, (said["data"] or {}).get("errors", [])


async def machine(lifesign: Lifesign, name: str = "db1", **fields: object) -> Machine:
    """A new system."""
    return Machine(lifesign, await asked(lifesign, "POST", "", {"name": name} | fields, expect=201))
