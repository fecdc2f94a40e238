"""Which refusal wins when several apply. Spec "Telemetry", section 3, the table."""

import asyncio
import gzip
import itertools
import logging
from collections.abc import AsyncIterator, Iterator, MutableMapping, Sequence
from contextlib import AsyncExitStack, contextmanager

import httpx2
import structlog
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types
from structlog.testing import capture_logs

from tests.harness import Lifesign, MakeLifesign
from tests.telemetry.senders import (
    JSON,
    PROTOBUF,
    Sender,
    json_of,
    protobuf_of,
    receiver_of,
    saturated,
    sender,
    spans,
)
from tests.wire import until

MOST = 4000
MIB = 1024 * 1024
GOOD = json_of(*spans(1))
FULL = json_of(*spans(1, first=99))
# Row by row: what is wrong, and how it is refused.
ROWS = {
    "key": (401, "missing_key"),
    "type": (415, "unsupported_media_type"),
    "encoding": (415, "unsupported_encoding"),
    "announced": (413, "body_too_large"),
    "saturated": (503, "overloaded"),
    "long": (413, "body_too_large"),
    "inflates": (413, "body_too_large"),
    "broken": (400, "invalid_encoding"),
    "undecodable": (400, "invalid_otlp"),
    "quota": (429, "quota_exceeded"),
}
# What cannot be wrong at once: each row is about a body of its own.
BODIES = ("announced", "long", "inflates", "broken", "undecodable", "quota")


def body_with(wrong: Sequence[str]) -> bytes:
    match next((each for each in wrong if each in BODIES), None):
        case "announced" | "long":
            return b" " * (MOST + 1)
        case "inflates":
            # What follows is broken, too, and inflating stops before it.
            return gzip.compress(b"x" * (MOST + 1)) + b"rubbish"
        case "broken":
            # It inflates to what is no OTLP either.
            return gzip.compress(b"{")[:-1]
        case "undecodable":
            return b"{"
        case _:
            return FULL


async def in_parts(body: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not announced."""
    yield body[: len(body) // 2]
    yield body[len(body) // 2 :]


async def sent(ours: Sender, wrong: Sequence[str], kind: str = JSON) -> httpx2.Response:
    body = body_with(wrong)
    if kind == PROTOBUF and body == FULL:
        body = protobuf_of(*spans(1, first=99))
    headers = {}
    if "encoding" in wrong:
        headers["Content_Encoding"] = "br"
    elif {"inflates", "broken"} & {*wrong}:
        headers["Content_Encoding"] = "gzip"
    return await ours.post(
        in_parts(body) if "announced" not in wrong else body,
        "text/plain" if "type" in wrong else kind,
        key=None if "key" in wrong else "",
        **headers,
    )


def combinations() -> list[tuple[str, ...]]:
    every = [
        wrong for size in (1, 2, 3) for wrong in itertools.combinations(ROWS, size) if len({*BODIES} & {*wrong}) <= 1
    ]
    assert len(every) == 80
    return every


async def test_of_all_that_is_wrong_the_first_row_of_the_table_is_told(start_lifesign: MakeLifesign) -> None:
    told: dict[tuple[str, ...], tuple[int, str]] = {}
    async with (
        start_lifesign(otlp_max_body_bytes=MOST, quota_spans=1) as lifesign,
        sender(lifesign) as ours,
    ):
        await ours.told(*spans(1))
        for wrong in combinations():
            answer = await _refused(lifesign, ours, wrong)
            assert answer.json()["ok"] is False
            told[wrong] = (answer.status_code, answer.json()["error"])

        assert await ours.span_ids() == [1]

    assert told == {wrong: ROWS[wrong[0]] for wrong in told}


# As exporters know them; where the type of the request is unusable the answer is JSON.
CODES = {
    "key": 16,
    "encoding": 3,
    "announced": 8,
    "saturated": 14,
    "long": 8,
    "inflates": 8,
    "broken": 3,
    "undecodable": 3,
    "quota": 8,
}


async def test_each_refusal_of_protobuf_is_a_status_of_its_code(start_lifesign: MakeLifesign) -> None:
    told: dict[str, tuple[int, str, int]] = {}
    async with (
        start_lifesign(otlp_max_body_bytes=MOST, quota_spans=1) as lifesign,
        sender(lifesign) as ours,
    ):
        await ours.told(*spans(1))
        for row in CODES:
            answer = await _refused(lifesign, ours, (row,), PROTOBUF)
            status = Status.FromString(answer.content)
            assert status.message
            told[row] = (answer.status_code, answer.headers["content-type"], status.code)

    assert told == {row: (ROWS[row][0], PROTOBUF, code) for row, code in CODES.items()}


async def _refused(lifesign: Lifesign, ours: Sender, wrong: Sequence[str], kind: str = JSON) -> httpx2.Response:
    async with AsyncExitStack() as stack:
        if "saturated" in wrong:
            await stack.enter_async_context(saturated(lifesign))
        if wrong[0] != "saturated":
            return await sent(ours, wrong, kind)
        return await after_two_seconds(lifesign, ours, wrong, kind)


async def after_two_seconds(
    lifesign: Lifesign, ours: Sender, wrong: Sequence[str], kind: str = JSON
) -> httpx2.Response:
    """The answer to whoever waits for room, for as long as that is tried."""
    budget = receiver_of(lifesign).budget
    asking = asyncio.create_task(sent(ours, wrong, kind))
    await until(lambda: budget.waiting > 0)
    await lifesign.advance(2)
    return await asking


@contextmanager
def log_lines() -> Iterator[list[MutableMapping[str, object]]]:
    """What is logged in the block, at the level of a server; tests have a higher one."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        with capture_logs() as lines:
            yield lines
    finally:
        structlog.configure(**before)


async def test_spans_have_a_line_in_the_log_only_when_it_went_wrong(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        with log_lines() as lines:
            assert (await sent(ours, ())).status_code == 202
            assert (await sent(ours, ("undecodable",))).status_code == 400
            assert (await ours.http.get("/v1/traces")).status_code == 405
            async with saturated(lifesign):
                assert (await after_two_seconds(lifesign, ours, ())).status_code == 503
            assert (await ours.http.get("/v1/logs")).status_code == 404

    told = [(each["path"], each["status"]) for each in lines if each["event"] == "request.handled"]
    assert told == [("/v1/traces", 503), ("/v1/logs", 404)]


async def test_a_large_request_waits_two_seconds_for_its_turn_and_small_ones_do_not(lifesign: Lifesign) -> None:
    turns = receiver_of(lifesign).turns
    large = json_of(*spans(1, first=7)) + b" " * MIB
    async with sender(lifesign) as ours:
        await turns.take(1, has_begun=False)
        assert (await ours.post(GOOD)).status_code == 202
        asking = asyncio.create_task(ours.post(large))
        await until(lambda: turns.waiting > 0)
        await lifesign.advance(1.9)
        is_patient = turns.waiting == 1
        await lifesign.advance(0.1)
        refused = await asking
        turns.give_back(1)

        assert is_patient
        assert (refused.status_code, refused.headers["retry-after"], refused.json()["error"]) == (
            503,
            "1",
            "overloaded",
        )
        assert (await ours.post(large)).status_code == 202
        assert await ours.span_ids() == [1, 7]
        assert (turns.used, receiver_of(lifesign).budget.used) == (0, 0)


async def test_whoever_finds_no_room_is_told_to_come_back_in_a_second(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, saturated(lifesign):
        answer = await after_two_seconds(lifesign, ours, ())

    assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", 14)
