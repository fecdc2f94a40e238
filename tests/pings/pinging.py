"""Checks as their clients see them."""

from typing import Any, cast

import httpx2

from tests.harness import Json, Lifesign

RID = "0b6b7f3e-6a3b-4b0e-9d0f-3a1c2b4d5e6f"
OTHER_RID = "5f0c8d3b-9a7e-4f21-b6c0-d9e8f7a6b5c4"


async def api(
    lifesign: Lifesign, method: str, path: str, body: object = None, *, key: str | None = None, version: int = 3
) -> httpx2.Response:
    """Ask the management API."""
    headers = {"X-Api-Key": key or "test-admin-key-0123456789"}
    async with lifesign.client(None) as http:
        return await http.request(method, f"/api/v{version}/{path}", json=body, headers=headers)


async def check(lifesign: Lifesign, *, version: int = 3, **fields: object) -> Json:
    """A new check."""
    answer = await api(lifesign, "POST", "checks/", fields, version=version)
    assert answer.status_code == 201, answer.text
    return cast("Json", answer.json())


async def read(lifesign: Lifesign, made: Json, *, version: int = 3) -> Json:
    """A check as it is now."""
    answer = await api(lifesign, "GET", f"checks/{made['uuid']}", version=version)
    assert answer.status_code == 200, answer.text
    return cast("Json", answer.json())


async def send(
    lifesign: Lifesign, path: str, method: str = "GET", *, content: bytes | None = None, **headers: str
) -> httpx2.Response:
    """Call a ping URL, or what stands behind `/ping/`."""
    url = path if path.startswith("http") else f"/ping/{path}"
    async with lifesign.client(None) as http:
        return await http.request(
            method, url, content=content, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


async def pings(lifesign: Lifesign, made: Json) -> list[Json]:
    """The pings of a check, newest first."""
    answer = await api(lifesign, "GET", f"checks/{made['uuid']}/pings/")
    assert answer.status_code == 200, answer.text
    return cast("list[Json]", answer.json()["pings"])


async def ping_key(lifesign: Lifesign, *scopes: str) -> str:
    """A key that may ping, or whatever else is said."""
    body = {"name": "pings", "scopes": list(scopes or ["checkins:write"])}
    return str((await lifesign.ask("POST", "/v1/keys", body, expect=201))["token"])


async def of_heartbeat(lifesign: Lifesign) -> tuple[Any, str]:  # Any: JSON
    """A heartbeat made elsewhere, and its ping id."""
    made = await lifesign.heartbeat()
    return made, made["pingUrl"].rpartition("/")[2]
