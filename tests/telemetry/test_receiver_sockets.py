"""Uploads as networks make them: slow, broken, endless. Spec "Telemetry", sections 3, 3.2 and 3.3."""

import gzip
import json

import pytest

from lifesign.telemetry import otlp_routes
from tests.harness import Lifesign, MakeLifesign
from tests.telemetry.senders import (
    head_of,
    json_of,
    length,
    receiver_of,
    sender,
    spans,
)
from tests.wire import connected, listening, until

BODY = json_of(*spans(3))
MIB = 1024 * 1024


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


async def test_a_body_in_chunks_of_a_byte_is_taken(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, listening(lifesign) as port, connected(port) as wire:
        await wire.send(head_of(ours, "Transfer-Encoding: chunked"))
        for at in range(len(BODY)):
            await wire.send(chunk(BODY[at : at + 1]))
        await wire.send(chunk(b""))

        status, headers, body = await wire.answer()

        assert (status, headers["content-type"], json.loads(body)["accepted"]) == (202, "application/json", 3)
        assert await ours.span_ids() == [1, 2, 3]


async def test_whoever_hangs_up_within_the_body_leaves_nothing_and_gives_the_room_back(lifesign: Lifesign) -> None:
    budget = receiver_of(lifesign).budget
    async with sender(lifesign) as ours, listening(lifesign) as port:
        for lines in (length(BODY), "Transfer-Encoding: chunked"):
            async with connected(port) as wire:
                start = BODY[:-5]
                await wire.send(head_of(ours, lines) + (start if lines.startswith("Content") else chunk(start)))
                await until(lambda: budget.used > 0)
            await until(lambda: budget.used == 0)

        assert await ours.stored() == []


async def test_whoever_hangs_up_once_the_body_was_read_leaves_everything(start_lifesign: MakeLifesign) -> None:
    large = gzip.compress(BODY + b" " * 15_000)
    async with (
        start_lifesign(otlp_inflight_bytes=20_000, otlp_max_body_bytes=20_000) as lifesign,
        sender(lifesign) as ours,
        listening(lifesign) as port,
    ):
        budget = receiver_of(lifesign).budget
        with budget.lease() as others:
            await others.grow_to(10_000)
            async with connected(port) as wire:
                await wire.send(head_of(ours, length(large), "Content-Encoding: gzip") + large)
                # It was read, and waits for the room that it takes when it is inflated.
                await until(lambda: budget.waiting == 1)
        await until(lambda: budget.used == 0)

        assert await ours.span_ids() == [1, 2, 3]


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_sender_of_too_much_reads_the_refusal_however_much_it_still_sends(
    start_lifesign: MakeLifesign, is_announced: bool
) -> None:
    async with (
        start_lifesign(otlp_max_body_bytes=MIB) as lifesign,
        sender(lifesign) as ours,
        listening(lifesign) as port,
        connected(port) as wire,
    ):
        body = b" " * (20 * MIB)
        await wire.send(head_of(ours, length(body) if is_announced else "Transfer-Encoding: chunked"))
        # All of it, and only then the answer is looked at, as most clients do.
        await wire.send(body if is_announced else chunk(body) + chunk(b""))
        status, headers, told = await wire.answer()

        assert (status, json.loads(told)["error"], headers["connection"]) == (413, "body_too_large", "close")
        assert await wire.is_closed()
        assert receiver_of(lifesign).budget.used == 0


async def test_a_sender_that_asks_first_sends_nothing_of_a_body_that_is_too_large(
    start_lifesign: MakeLifesign,
) -> None:
    async with (
        start_lifesign(otlp_max_body_bytes=MIB) as lifesign,
        sender(lifesign) as ours,
        listening(lifesign) as port,
        connected(port) as wire,
    ):
        await wire.send(head_of(ours, f"Content-Length: {2 * MIB}", "Expect: 100-continue"))

        assert (await wire.answer())[0] == 413


@pytest.mark.parametrize(
    ("line", "status"), [("Content-Encoding: br", 415), ("Content-Type: text/plain", 202), ("X-Nothing: x", 401)]
)
async def test_after_a_refusal_that_left_the_body_unread_the_connection_is_as_good_as_before(
    lifesign: Lifesign, line: str, status: int
) -> None:
    async with sender(lifesign) as ours, listening(lifesign) as port, connected(port) as wire:
        key = "nonsense" if status == 401 else None
        body = BODY + b" " * (8 * MIB)
        await wire.send(head_of(ours, length(body), line, key=key) + body)
        assert (await wire.answer())[0] == status

        await wire.send(head_of(ours, length(BODY)) + BODY)
        assert (await wire.answer())[0] == 202


async def test_a_body_that_stops_coming_is_given_up(lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_routes, "FIRST_S", 0.2)
    async with sender(lifesign) as ours, listening(lifesign) as port, connected(port) as wire:
        await wire.send(head_of(ours, length(BODY)) + BODY[:-1])

        status, headers, told = await wire.answer()

        assert (status, json.loads(told)["error"], json.loads(told)["code"]) == (408, "body_too_slow", 4)
        assert headers["connection"] == "close"
        assert receiver_of(lifesign).budget.used == 0
        assert await ours.stored() == []


async def test_room_is_taken_from_the_announcement_on_and_others_wait_for_it(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(otlp_inflight_bytes=10_000, otlp_max_body_bytes=10_000) as lifesign,
        sender(lifesign) as ours,
        listening(lifesign) as port,
        connected(port) as first,
        connected(port) as second,
        connected(port) as third,
    ):
        budget = receiver_of(lifesign).budget
        large = BODY + b" " * (9500 - len(BODY))
        await first.send(head_of(ours, length(large)) + large[:-1])
        await until(lambda: budget.used == 9500)
        await second.send(head_of(ours, length(BODY)) + BODY)
        await until(lambda: budget.waiting == 1)
        await lifesign.advance(1.9)
        await third.send(head_of(ours, length(BODY)) + BODY)
        await until(lambda: budget.waiting == 2)

        await lifesign.advance(0.1)
        status, headers, told = await second.answer()
        assert (status, headers["retry-after"], json.loads(told)["error"]) == (503, "1", "overloaded")

        await first.send(large[-1:])
        assert (await first.answer())[0] == 202
        assert (await third.answer())[0] == 202
        await second.send(head_of(ours, length(BODY)) + BODY)
        assert (await second.answer())[0] == 202
        assert budget.used == 0


async def test_what_a_body_inflates_to_takes_room_as_well(start_lifesign: MakeLifesign) -> None:
    large = gzip.compress(BODY + b" " * 20_000)
    async with (
        start_lifesign(otlp_inflight_bytes=30_000, otlp_max_body_bytes=30_000) as lifesign,
        sender(lifesign) as ours,
        listening(lifesign) as port,
        connected(port) as wire,
    ):
        budget = receiver_of(lifesign).budget
        with budget.lease() as others:
            await others.grow_to(10_000)
            await wire.send(head_of(ours, length(large), "Content-Encoding: gzip") + large)
            await until(lambda: budget.waiting == 1)
            await lifesign.advance(2)

            assert (await wire.answer())[0] == 503
            assert budget.used == 10_000
        assert await ours.stored() == []
