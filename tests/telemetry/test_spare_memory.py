"""What large requests used is given back to the system, once for several of them."""

import asyncio
import re
from pathlib import Path

import pytest

from lifesign.telemetry import spare_memory
from lifesign.telemetry.spare_memory import SpareMemory, give_back
from tests.harness import Lifesign
from tests.telemetry.senders import json_of, receiver_of, sender, spans
from tests.wire import until

MIB = 1024


def own_kib() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


needs_glibc = pytest.mark.skipif(
    spare_memory._trim() is None,  # noqa: SLF001 - whether this system can
    reason="no malloc_trim here: its C library is not glibc",
)


@needs_glibc
def test_what_is_free_between_pieces_in_use_is_given_back() -> None:
    # Both are from the same heap: too large for Python's own, too small for pages of their own.
    kept, free = [], []
    for _ in range(4000):
        free.append(bytes(20_000))
        kept.append(bytes(1_000))
    del free
    before = own_kib()

    give_back()

    assert len(kept) == 4000
    assert before - own_kib() > 40 * MIB


async def test_it_is_given_back_once_for_what_was_used_in_a_while() -> None:
    given: list[int] = []
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    def give() -> None:
        given.append(1)
        loop.call_soon_threadsafe(done.set)

    spare = SpareMemory(after_s=0, give=give)
    for _ in range(3):
        spare.was_used()
    await asyncio.wait_for(done.wait(), 30)
    assert len(given) == 1

    done.clear()
    spare.was_used()
    await asyncio.wait_for(done.wait(), 30)
    assert len(given) == 2


async def test_it_is_much_after_a_large_request_and_not_after_a_small_one(lifesign: Lifesign) -> None:
    given: list[int] = []
    receiver_of(lifesign).spare_memory = SpareMemory(after_s=0, give=lambda: given.append(1))
    async with sender(lifesign) as ours:
        assert (await ours.post(json_of(*spans(1)))).status_code == 202
        await asyncio.sleep(0)
        after_small = list(given)
        assert (await ours.post(json_of(*spans(1, first=7)) + b" " * 1024 * 1024)).status_code == 202
        await until(lambda: len(given) > 0)

    assert (after_small, given) == ([], [1])


async def test_closing_leaves_it() -> None:
    given: list[int] = []
    spare = SpareMemory(after_s=0, give=lambda: given.append(1))

    spare.was_used()
    await spare.close()
    await asyncio.sleep(0)
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)

    assert given == []


async def test_what_has_begun_is_finished_first_things_first() -> None:
    done: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        begun.set()
        await go_on.wait()
        done.append("first")

    spare = SpareMemory(after_s=0, give=lambda: done.append("given"), first=first)
    spare.was_used()
    await asyncio.wait_for(begun.wait(), 30)
    closing = asyncio.create_task(spare.close())
    await asyncio.sleep(0)
    is_closed_early = closing.done()
    go_on.set()
    await closing

    assert (is_closed_early, done) == (False, ["first", "given"])
