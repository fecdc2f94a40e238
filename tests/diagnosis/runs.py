"""Agents whose telemetry is diagnosed over HTTP."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import httpx2

from tests.diagnosis import shapes
from tests.harness import Json, Lifesign
from tests.telemetry.senders import Sender, sender

START_NS = 1_767_614_300_000_000_000


def attribute(name: str, value: str | int | bool) -> Json:
    kind = "boolValue" if isinstance(value, bool) else "intValue" if isinstance(value, int) else "stringValue"
    return {"key": name, "value": {kind: str(value) if kind == "intValue" else value}}


@dataclass(slots=True)
class Agent:
    """Sends spans, and asks what stands out."""

    ours: Sender
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def span(
        self,
        name: str = "execute_tool search",
        *,
        trace: int | None = None,
        parent: Json | None = None,
        failing: bool = False,
        error: str = "Timeout",
        message: str = "",
        seconds: float = 0.1,
        start_ns: int | None = None,
        session: str | None = None,
        **attributes: str | int | bool,
    ) -> Json:
        """A span of a trace of its own, unless told; `__` in the names of attributes stands for a dot."""
        number = next(self.numbers)
        start = START_NS + number * 1_000_000_000 if start_ns is None else start_ns
        trace_id = f"{number if trace is None else trace:032x}" if parent is None else parent["traceId"]
        told: dict[str, str | int | bool] = {key.replace("__", "."): value for key, value in attributes.items()}
        if session is not None:
            told["session.id"] = session
        if failing:
            told["error.type"] = error
        made: Json = {
            "traceId": trace_id,
            "spanId": f"{number:016x}",
            "name": name,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + int(seconds * 1e9)),
            "attributes": [attribute(key, value) for key, value in told.items()],
        }
        if parent is not None:
            made["parentSpanId"] = parent["spanId"]
        if failing:
            made["status"] = {"code": 2, "message": message}
        return made

    def tool(self, tool: str = "search", **said: object) -> Json:
        """A call of a tool."""
        fields = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": tool} | said
        return self.span(f"execute_tool {tool}", **fields)  # type: ignore[arg-type]  # checked by `span`

    async def send(self, *spans: Json) -> None:
        await self.ours.told(*spans)

    async def ask(self, method: str, path: str, body: object = None, *, key: str | None = None) -> httpx2.Response:
        return await self.ours.http.request(
            method, path, json=body, headers={"Authorization": f"Bearer {key or self.ours.agent_key}"}
        )

    async def told(self, method: str, path: str, body: object = None) -> Json:
        answer = await self.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        told = cast("Json", answer.json())
        if (model := shapes.ANSWERS.get(path.partition("?")[0])) is not None:
            shapes.assert_fits(model, told)
        if "packet" in told:
            shapes.assert_packet_fits(told["packet"])
        assert told.pop("ok") is True
        return told

    async def diagnose(self, **body: object) -> Json:
        return cast("Json", (await self.told("POST", "/v1/runs/diagnose", body))["packet"])

    async def titles(self, **body: object) -> list[str]:
        return [each["title"] for each in (await self.diagnose(**body))["issues"]]

    async def refused(self, method: str, path: str, body: object = None) -> tuple[int, str, str]:
        answer = await self.ask(method, path, body)
        told = answer.json()
        assert told["ok"] is False
        return answer.status_code, told["error"], told["message"]


@asynccontextmanager
async def agent(lifesign: Lifesign) -> AsyncIterator[Agent]:
    """An agent of a project of its own."""
    async with sender(lifesign) as ours:
        yield Agent(ours)
