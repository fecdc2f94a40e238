"""Spans that were answered are stored, whoever sends them and whatever becomes of the server. Spec "Telemetry", 3.2."""

import contextlib
import itertools
import random
import resource
from collections import Counter
from pathlib import Path
from typing import cast, get_args

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
from tests import postgres
from tests.faults import killing_spans
from tests.faults.killing_spans import Store
from tests.faults.server import Server, serving, until
from tests.harness import ADMIN_KEY, SETTINGS, Json, Lifesign
from tests.telemetry.requests import sdk_spans
from tests.telemetry.senders import JSON, json_of


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
@pytest.mark.parametrize("store", get_args(Store))
def test_every_answered_span_is_stored_when_the_server_is_killed(
    tmp_path: Path, store: Store, request: pytest.FixtureRequest
) -> None:
    """The short form of `make faults-spans`."""
    seed = random.randrange(1_000_000)
    with contextlib.ExitStack() as stack:
        url = None
        if store == "postgresql":
            running: postgres.Databases = request.getfixturevalue("cluster")
            url = stack.enter_context(running.new_database())

        result = killing_spans.run(tmp_path, store, kills=1, seed=seed, database_url=url)

    assert result.is_good, f"seed {seed}\n{killing_spans.table([result])}"
    assert result.stored >= result.answered > 0


# A full disk --------------------------------------------------------------------------------------------------------
LARGE = {"key": "text", "value": {"stringValue": "x" * 30_000}}


def large_spans(number: int) -> bytes:
    """A request of 300 kB."""
    ids = [f"{number:012x}{each:04x}" for each in range(1, 11)]
    return json_of(*({"traceId": f"{number:032x}", "spanId": each, "attributes": [LARGE]} for each in ids))


@pytest.mark.parametrize("store", ["sqlite", "clickhouse"])
def test_spans_are_refused_while_the_disk_is_full_and_what_was_answered_outlives_a_kill(
    tmp_path: Path, store: Store
) -> None:
    url = f"chdb://{tmp_path}/clickhouse" if store == "clickhouse" else None
    with serving(tmp_path, log_level="error", telemetry_url=url) as server:
        made = provisioned(server)
        key = {"Authorization": f"Bearer {made['producer_key']}", "Content-Type": "application/json"}
        numbers = itertools.count(1)
        with httpx2.Client(base_url=server.url, headers=key, timeout=30, trust_env=False) as http:
            first = http.post("/v1/traces", content=large_spans(next(numbers)))
            # A file that may grow no further is what a full disk is to the process.
            full = max(each.stat().st_size for each in (tmp_path / "data").iterdir()) + 2**20
            _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full, hard))
            while (told := http.post("/v1/traces", content=large_spans(number := next(numbers)))).status_code == 202:
                assert number < 100
            encoded = http.post("/v1/traces", content=b"", headers={"Content-Type": "application/x-protobuf"})
            health = server.request("GET", "/health").status_code

            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
            until(lambda: http.post("/v1/traces", content=large_spans(number)).status_code == 202)
            http.headers["Authorization"] = f"Bearer {made['agent_key']}"
            packet = http.post("/v1/runs/diagnose", content=b"").json()["packet"]
            late = http.post("/v1/provision", json={"project_name": "late"}).json()
        server.kill()

    with serving(tmp_path, log_level="error", telemetry_url=url) as server:
        found = killing_spans.stored(server, made["agent_key"])
        used = killing_spans.asked(server, made["agent_key"], "/v1/dashboard")["quota"]["used"]
        kept = killing_spans.asked(server, made["agent_key"], f"/v1/runs/{packet['packet_id']}")
        seen = killing_spans.asked(server, late["agent_key"], "/v1/dashboard")

    assert first.status_code == 202
    assert (told.status_code, told.headers["retry-after"], told.headers["content-type"]) == (503, "5", JSON)
    assert (told.json()["error"], told.json()["code"]) == ("storage_unavailable", 14)
    # Nothing to store needs no room.
    assert (encoded.status_code, health) == (200, 200)
    assert Counter(int(each[-16:-4], 16) for each in found) == dict.fromkeys(range(1, number + 1), 10)
    assert used == 10 * number
    assert kept["packet"] == packet
    assert seen["project"]["project_id"] == late["project_id"]
