"""Whoever sends spans."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import httpx2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lifesign.clock import EpochMs
from lifesign.telemetry.receiver import Receiver
from lifesign.telemetry.store import Filter, SpanStore, Stored
from tests.harness import Json, Lifesign
from tests.projects.visitors import visitor
from tests.telemetry.requests import USUAL, body_of

JSON, PROTOBUF = "application/json", "application/x-protobuf"
ADDRESS = "/v1/traces"


def spans(count: int, *, first: int = 1, **fields: object) -> list[Json]:
    """Spans of one trace."""
    return [USUAL | {"spanId": f"{number:016x}"} | fields for number in range(first, first + count)]


def json_of(*each: object) -> bytes:
    return body_of(*each)


def protobuf_of(*each: Json) -> bytes:
    request = ExportTraceServiceRequest()
    part = request.resource_spans.add().scope_spans.add()
    for span in each:
        part.spans.add(
            trace_id=bytes.fromhex(span.get("traceId", "")),
            span_id=bytes.fromhex(span.get("spanId", "")),
            name=span.get("name", ""),
            start_time_unix_nano=int(span.get("startTimeUnixNano", 0)),
            end_time_unix_nano=int(span.get("endTimeUnixNano", 0)),
        )
    return bytes(request.SerializeToString())


@dataclass(frozen=True, slots=True)
class Sender:
    """An application of one project, with its producer key."""

    http: httpx2.AsyncClient
    project_id: str
    producer_key: str
    agent_key: str
    lifesign: Lifesign

    async def post(
        self, content: bytes | AsyncIterator[bytes], kind: str | None = JSON, *, key: str | None = "", **headers: str
    ) -> httpx2.Response:
        """Post a body; key: None for none, else the producer key where nothing is said."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            sent["Content-Type"] = kind
        if key is not None:
            sent["Authorization"] = f"Bearer {key or self.producer_key}"
        return await self.http.post(ADDRESS, content=content, headers=sent)

    async def told(self, *each: object, expect: int = 202) -> Json:
        """The answer to spans in JSON, whose status must be as expected."""
        answer = await self.post(json_of(*each))
        assert answer.status_code == expect, answer.text
        return cast("Json", answer.json())

    async def stored(self) -> list[Stored]:
        """All that this project has."""
        now = EpochMs(self.lifesign.now() + 1)
        return await store_of(self.lifesign).window(
            self.project_id, EpochMs(0), now, only=Filter(), limit=10_000, after=None
        )

    async def span_ids(self) -> list[int]:
        """The numbers of the spans that are stored, in order."""
        return sorted(int(each.record.span_id, 16) for each in await self.stored())

    async def used(self) -> int:
        return await store_of(self.lifesign).used(self.project_id, self.lifesign.now())


def store_of(lifesign: Lifesign) -> SpanStore:
    return cast("SpanStore", lifesign.node.api.state.store)


def receiver_of(lifesign: Lifesign) -> Receiver:
    return cast("Receiver", lifesign.node.api.state.receiver)


@asynccontextmanager
async def sender(lifesign: Lifesign) -> AsyncIterator[Sender]:
    """An application of a project of its own."""
    async with visitor(lifesign) as someone:
        made = await someone.provision()
        yield Sender(someone.http, made["project_id"], made["producer_key"], made["agent_key"], lifesign)


@asynccontextmanager
async def saturated(lifesign: Lifesign) -> AsyncIterator[None]:
    """All the room for requests is taken until the block ends."""
    receiver = receiver_of(lifesign)
    with receiver.budget.lease() as lease:
        await lease.grow_to(lifesign.node.settings.otlp_inflight_bytes)
        yield


# Over a socket ---------------------------------------------------------------------------------------------------
def head_of(sender: Sender, *lines: str, key: str | None = None) -> bytes:
    """The first lines of a request."""
    usual = [f"POST {ADDRESS} HTTP/1.1", "Host: lifesign", f"Authorization: Bearer {key or sender.producer_key}"]
    return ("\r\n".join([*usual, "Content-Type: application/json", *lines]) + "\r\n\r\n").encode()


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"
