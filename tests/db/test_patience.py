"""One time-out for many waits."""

import asyncio

import pytest

from lifesign.db.patience import Patience


async def test_what_comes_in_time_is_returned_and_what_it_raises_is_raised() -> None:
    patience = Patience(30)

    async def fails() -> None:
        raise KeyError("x")

    assert await patience.wait(asyncio.sleep(0, "result")) == "result"
    with pytest.raises(KeyError):
        await patience.wait(fails())


async def test_only_those_end_that_waited_too_long() -> None:
    patience = Patience(0.2)
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def late() -> str:
        await asyncio.sleep(0.15)
        return await patience.wait(gate)

    first = asyncio.create_task(patience.wait(asyncio.Event().wait()))
    quick = asyncio.create_task(patience.wait(asyncio.sleep(0, "quick")))
    last = asyncio.create_task(late())
    with pytest.raises(TimeoutError):
        await first
    is_last_waiting = not last.done()
    gate.set_result("opened")

    assert is_last_waiting
    assert (await quick, await last) == ("quick", "opened")


async def test_all_that_wait_for_nothing_end() -> None:
    patience = Patience(0.05)
    never = asyncio.Event()

    ended = await asyncio.gather(*(patience.wait(never.wait()) for _ in range(50)), return_exceptions=True)

    assert [type(each) for each in ended] == [TimeoutError] * 50
    with pytest.raises(TimeoutError):
        await patience.wait(never.wait())


async def test_somebody_who_is_canceled_is_not_told_of_a_time_out() -> None:
    waiting = asyncio.create_task(Patience(30).wait(asyncio.Event().wait()))
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_task_goes_on_after_a_time_out() -> None:
    patience = Patience(0.05)

    async def twice() -> str:
        with pytest.raises(TimeoutError):
            await patience.wait(asyncio.Event().wait())
        return await patience.wait(asyncio.sleep(0, "went on"))

    assert await asyncio.create_task(twice()) == "went on"
