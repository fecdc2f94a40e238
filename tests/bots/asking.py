"""How tests ask the Bots API."""

from collections.abc import Sequence
from typing import Any

import httpx2

from tests.harness import Json, Lifesign

PROMPT = "Look at the error log."


async def asked(
    lifesign: Lifesign, method: str, path: str, body: Any = None, *, expect: int = 200, client: Any = None, **query: Any
) -> Json:
    """The answer of a route of the Bots API. Any: JSON, and clients."""
    params = {"project_id": "default"} | query if method in {"GET", "DELETE"} else query
    sent = {"project_id": "default"} | body if isinstance(body, dict) else body
    answer: httpx2.Response = await (client or lifesign.http).request(
        method, f"/v1/bot{path}", params=params, json=sent if method in {"POST", "PUT"} else None
    )
    assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
    told: Json = answer.json()
    if expect >= 400:
        assert told["error"]["status"] == expect
        assert told["message"]
    else:
        assert "error" not in told
    return told


async def bot(lifesign: Lifesign, /, name: str = "Night watch", **fields: Any) -> Json:
    """A new bot whose schedules run, unless said otherwise."""
    body = {"name": name, "heartbeat": 1, "model": "m"} | fields
    made: Json = (await asked(lifesign, "POST", "/create", body))["bot"]
    return made


async def configured(lifesign: Lifesign, bot_id: Any, /, *, expect: int = 200, **fields: Any) -> Json:
    """A schedule; where something else than 200 is expected, the whole answer."""
    body = {"bot_id": bot_id, "prompt": PROMPT} | fields
    told = await asked(lifesign, "POST", "/heartbeat/configure", body, expect=expect)
    return told["heartbeat"] if expect == 200 else told


async def read(lifesign: Lifesign, heartbeat: Json) -> Json:
    """A schedule as it is now."""
    query = {"bot_id": heartbeat["bot_id"], "heartbeat_id": heartbeat["uuid"]}
    told: Json = (await asked(lifesign, "GET", "/heartbeat/read", **query))["heartbeat"]
    return told


async def switched(lifesign: Lifesign, heartbeat: Json, way: str) -> Json:
    """A schedule after `enable` or `disable`."""
    body = {"bot_id": heartbeat["bot_id"], "heartbeat_id": heartbeat["uuid"]}
    told: Json = (await asked(lifesign, "POST", f"/heartbeat/{way}", body))["heartbeat"]
    return told


async def settings(lifesign: Lifesign, /, **fields: Any) -> Json:
    """The settings of the project's bots, after a change."""
    told: Json = (await asked(lifesign, "PUT", "/settings", fields))["settings"]
    return told


async def key(lifesign: Lifesign, scopes: Sequence[str]) -> str:
    """A key with some scopes."""
    made = await lifesign.ask("POST", "/v1/keys", {"name": "narrow", "scopes": list(scopes)}, expect=201)
    return str(made["token"])
