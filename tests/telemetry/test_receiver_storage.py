"""A store that does not commit, and what the settings say. Spec "Telemetry", sections 3 (row 10), 3.3 and 9."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types
from pydantic import ValidationError
from sqlalchemy import Connection

from lifesign.app import open_node
from lifesign.settings import Settings
from lifesign.telemetry import receiver
from tests.faults.server import starting
from tests.harness import Lifesign, MakeLifesign
from tests.telemetry.requests import USUAL
from tests.telemetry.senders import PROTOBUF, json_of, protobuf_of, receiver_of, sender, spans
from tests.wire import until


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Somebody else keeps the store from writing."""
    if settings.database_url is None:
        with closing(sqlite3.connect(settings.data_dir / "telemetry.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
        return
    with psycopg.connect(settings.database_url.get_secret_value()) as other_conn:
        other_conn.execute("LOCK TABLE telemetry.spans IN ACCESS EXCLUSIVE MODE")
        yield


async def test_a_store_that_takes_too_long_is_told_and_what_it_holds_counts_until_it_lets_go(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "COMMIT_S", 0.1)
    budget = receiver_of(lifesign).budget
    async with sender(lifesign) as ours:
        with locked(lifesign.node.settings):
            told = await ours.post(json_of(*spans(2)))
            encoded = await ours.post(protobuf_of(*spans(2, first=3)), PROTOBUF)
            assert budget.used > 0
        await until(lambda: budget.used == 0)
        monkeypatch.undo()

        assert (told.status_code, told.headers["retry-after"]) == (503, "5")
        assert (told.json()["error"], told.json()["code"]) == ("storage_unavailable", 14)
        assert (encoded.status_code, Status.FromString(encoded.content).code) == (503, 14)
        assert (await ours.told(*spans(4)))["accepted"] == 4
        assert await ours.span_ids() == [1, 2, 3, 4]
        assert await ours.used() == 4


async def test_spans_are_taken_although_somebody_writes_without_end(lifesign: Lifesign) -> None:
    begun, end = threading.Event(), threading.Event()

    def write(_conn: Connection) -> None:
        begun.set()
        end.wait(30)

    async with sender(lifesign) as ours:
        # The quota of the project is known, and the key: nothing more is asked of that database.
        await ours.told(*spans(1))
        writing = asyncio.create_task(lifesign.node.db.write(write))
        await asyncio.to_thread(begun.wait, 30)

        told = await ours.told(*spans(500))

        assert not writing.done()
        end.set()
        await writing
        assert told["accepted"] == 500


# Settings -----------------------------------------------------------------------------------------------------------
async def test_own_prices_and_own_ideas_of_slow_are_used(start_lifesign: MakeLifesign, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"my-model": {"input": 2, "output": 10}}))
    told = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "my-model", "gen_ai.usage.input_tokens": 1000}
    took_a_second = {"startTimeUnixNano": "1000000000", "endTimeUnixNano": "2000000000"}
    async with start_lifesign(prices_file=prices, slow_ms_llm=1000) as lifesign, sender(lifesign) as ours:
        await ours.told(USUAL | took_a_second | {"attributes": told})

        [stored] = await ours.stored()
        assert stored.record.cost_nano == 2_000_000
        assert stored.record.body.cost_source == "priced"
        assert stored.record.signal_type == "slow_operation"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"m": {"input": -1, "output": 1}}'])
def test_a_file_of_prices_that_cannot_be_used_stops_the_start_and_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "prices.json"
    if content is not None:
        file.write_text(content)

    with starting(tmp_path / "server", prices_file=file) as server:
        assert server.exit_code() == 1

    said = server.log.read_text()
    assert "LIFESIGN_PRICES_FILE" in said
    assert str(file) in said
    assert "admin key:" not in server.output.read_text()


async def test_the_key_of_a_first_start_is_not_made_before_prices_are_read(settings: Settings, tmp_path: Path) -> None:
    bad = settings.model_copy(update={"prices_file": tmp_path / "none.json", "admin_key": None})
    with pytest.raises(ValueError, match="LIFESIGN_PRICES_FILE"):
        await open_node(bad)

    good = await open_node(bad.model_copy(update={"prices_file": None}))
    try:
        assert good.new_admin_key is not None
    finally:
        await good.close()


def test_room_for_less_than_the_largest_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFESIGN_OTLP_MAX_BODY_BYTES", "4000")
    monkeypatch.setenv("LIFESIGN_OTLP_INFLIGHT_BYTES", "3999")
    with pytest.raises(ValidationError) as refused:
        Settings()

    [error] = refused.value.errors()
    assert "LIFESIGN_OTLP_INFLIGHT_BYTES must not be less than LIFESIGN_OTLP_MAX_BODY_BYTES" in error["msg"]
    monkeypatch.setenv("LIFESIGN_OTLP_INFLIGHT_BYTES", "4000")
    assert Settings().otlp_inflight_bytes == 4000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("otlp_json_success_status", 201),
        ("otlp_max_body_bytes", 0),
        ("otlp_inflight_bytes", "much"),
        ("otlp_cors_origins", "app.example.org"),
        ("otlp_cors_origins", "https://app.example.org/path"),
        ("slow_ms_tool", -1),
    ],
)
def test_a_bad_value_is_refused(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LIFESIGN_{name.upper()}", str(value))

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert [error["loc"] for error in refused.value.errors()] == [(name,)]
