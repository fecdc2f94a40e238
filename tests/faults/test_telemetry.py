"""Spans that were answered are stored, whoever sends them and whatever becomes of the server. Spec "Telemetry", 3.2."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx2
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from pydantic import SecretStr

from lifesign.clock import LATEST, EpochMs
from lifesign.telemetry.store import Filter, SpanStore, Stored
from tests.faults.server import Server, serving, until
from tests.harness import ADMIN_KEY, SETTINGS, Json, Lifesign
from tests.telemetry.requests import sdk_spans

SPANS_EACH = 20
ENOUGH = 40


def provisioned(server: Server) -> Json:
    return cast("Json", server.request("POST", "/v1/provision", {"project_name": "shop"}).json())


async def stored(directory: Path, database_url: str | None, project_id: str) -> list[Stored]:
    """All that a project has, read by a node of our own after the server is gone."""
    settings = SETTINGS.model_copy(
        update={
            "data_dir": directory / "data",
            "database_url": None if database_url is None else SecretStr(database_url),
            "admin_key": SecretStr(ADMIN_KEY),
        }
    )
    async with Lifesign.started(settings, at="2026-01-05T12:00:00.000Z") as lifesign:
        store = cast("SpanStore", lifesign.node.api.state.store)
        return await store.window(project_id, EpochMs(0), LATEST, only=Filter(), limit=1_000_000, after=None)


# The official exporter ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
async def test_the_official_exporter_is_served(
    tmp_path: Path, database_url: str | None, compression: Compression
) -> None:
    with serving(tmp_path, database_url=database_url) as server:
        made = provisioned(server)
        exporter = OTLPSpanExporter(
            endpoint=made["ingest_url"],
            headers={"Authorization": f"Bearer {made['producer_key']}"},
            compression=compression,
        )
        assert exporter.export(sdk_spans()) is SpanExportResult.SUCCESS
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it comes without types

    records = [each.record for each in await stored(tmp_path, database_url, made["project_id"])]
    assert sorted(record.body.name for record in records) == ["chat", "invoke_agent"]
    assert {record.service for record in records} == {"shop"}


async def test_an_application_that_is_instrumented_loses_no_span(tmp_path: Path, database_url: str | None) -> None:
    with serving(tmp_path, database_url=database_url) as server:
        made = provisioned(server)
        provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
        exporter = OTLPSpanExporter(
            endpoint=made["ingest_url"],
            headers={"Authorization": f"Bearer {made['producer_key']}"},
            compression=Compression.Gzip,
        )
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("shop")
        for number in range(1000):
            with tracer.start_as_current_span(f"order {number}"):
                pass
        assert provider.force_flush()
        provider.shutdown()

    names = [each.record.body.name for each in await stored(tmp_path, database_url, made["project_id"])]
    assert sorted(names) == sorted(f"order {number}" for number in range(1000))


# Kills --------------------------------------------------------------------------------------------------------------
class Load:
    """Four senders that write down which spans were answered, until the server is gone."""

    def __init__(self, url: str, key: str) -> None:
        self.answered: set[str] = set()
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(1, 5)]

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            for thread in self._threads:
                thread.join()

    def _send(self, sender: int) -> None:
        number = 0
        with httpx2.Client(headers=self._headers, timeout=10, trust_env=False) as http:
            while True:
                number += 1
                ids = [f"{number * 1000 + each:016x}" for each in range(SPANS_EACH)]
                spans = [{"traceId": f"{sender:032x}", "spanId": each, "name": "work"} for each in ids]
                body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
                try:
                    answer = http.post(self._url, content=body)
                except httpx2.TransportError:
                    return
                assert answer.json() == {"ok": True, "accepted": SPANS_EACH, "rejected": 0}
                self.answered |= {f"rec_{sender:032x}{each}" for each in ids}


async def test_every_answered_span_is_stored_when_the_server_is_killed(
    tmp_path: Path, database_url: str | None
) -> None:
    with serving(tmp_path, database_url=database_url) as server:
        made = provisioned(server)
        load = Load(made["ingest_url"], made["producer_key"])
        with load.running():
            until(lambda: len(load.answered) >= ENOUGH * SPANS_EACH, within_s=60)
            server.kill()

    records = [each.record.record_id for each in await stored(tmp_path, database_url, made["project_id"])]
    assert load.answered - {*records} == set()
    # What nobody was told of is there whole or not at all.
    assert len(records) % SPANS_EACH == 0
    assert len(records) == len({*records})
