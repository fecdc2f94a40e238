"""How many bytes of requests are in hand at once. Spec "Telemetry", section 3.3."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from lifesign.clock import EpochMs, ManualClock
from lifesign.telemetry.budget import LEAST_BYTES, Budget, Lease
from lifesign.telemetry.rules import Overloaded

K = LEAST_BYTES


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(EpochMs(0))


@pytest.fixture
def budget(clock: ManualClock) -> Budget:
    return Budget(10 * K, clock)


async def settled() -> None:
    """Everything that can happen without the clock has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


async def hold(budget: Budget, size: int, until: asyncio.Event) -> None:
    with budget.lease() as lease:
        await lease.grow_to(size)
        await until.wait()


@asynccontextmanager
async def waiting(work: Awaitable[None]) -> AsyncIterator["asyncio.Future[None]"]:
    task = asyncio.ensure_future(work)
    try:
        await settled()
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_room_is_given_back_at_the_end(budget: Budget) -> None:
    with budget.lease() as lease:
        await lease.grow_to(4 * K)
        await lease.grow_to(2 * K)
        await lease.grow_to(6 * K)
        assert budget.used == 6 * K

    assert budget.used == 0


async def test_a_request_without_a_body_takes_room_as_well(budget: Budget) -> None:
    with budget.lease() as lease:
        await lease.grow_to(0)

        assert budget.used == K


async def test_whoever_finds_no_room_for_two_seconds_is_refused(budget: Budget, clock: ManualClock) -> None:
    with budget.lease() as first:
        await first.grow_to(8 * K)
        async with waiting(hold(budget, 3 * K, asyncio.Event())) as second:
            clock.set(EpochMs(1999))
            await settled()
            assert not second.done()

            clock.set(EpochMs(2000))
            await settled()
            assert isinstance(second.exception(), Overloaded)

    assert budget.used == 0


async def test_whoever_is_larger_than_all_the_room_is_refused_after_the_same_time(
    budget: Budget, clock: ManualClock
) -> None:
    async with waiting(hold(budget, 11 * K, asyncio.Event())) as large:
        clock.set(EpochMs(2000))
        await settled()

        assert isinstance(large.exception(), Overloaded)


async def test_whoever_waits_is_let_in_once_there_is_room(budget: Budget) -> None:
    with budget.lease() as first:
        await first.grow_to(8 * K)
        async with waiting(hold(budget, 3 * K, asyncio.Event())):
            first.end()
            await settled()

            assert budget.used == 3 * K


async def test_nobody_is_overtaken_by_somebody_smaller(budget: Budget) -> None:
    with budget.lease() as first:
        await first.grow_to(8 * K)
        async with (
            waiting(hold(budget, 9 * K, asyncio.Event())),
            waiting(hold(budget, 1 * K, asyncio.Event())),
        ):
            assert budget.used == 8 * K

            first.end()
            await settled()
            assert budget.used == 10 * K


async def test_whoever_has_begun_comes_before_those_who_have_not(budget: Budget) -> None:
    async def grow(lease: Lease) -> None:
        await lease.grow_to(5 * K)

    with budget.lease() as first, budget.lease() as half_way:
        await first.grow_to(7 * K)
        await half_way.grow_to(2 * K)
        async with (
            waiting(hold(budget, 6 * K, asyncio.Event())) as new,
            waiting(grow(half_way)) as growing,
        ):
            first.end()
            await settled()

            assert growing.done()
            assert not new.done()
            assert budget.used == 5 * K


async def test_whoever_gives_up_lets_those_behind_have_the_room(budget: Budget) -> None:
    with budget.lease() as first:
        await first.grow_to(5 * K)
        async with (
            waiting(hold(budget, 9 * K, asyncio.Event())) as large,
            waiting(hold(budget, 2 * K, asyncio.Event())),
        ):
            large.cancel()
            await settled()

            assert budget.used == 7 * K


async def test_whoever_gives_up_at_the_moment_of_being_let_in_leaves_nothing_taken(budget: Budget) -> None:
    with budget.lease() as first:
        await first.grow_to(8 * K)
        async with waiting(hold(budget, 3 * K, asyncio.Event())) as second:
            first.end()
            second.cancel()
            await settled()

    assert budget.used == 0


async def test_a_lease_that_is_kept_ends_when_it_is_said(budget: Budget) -> None:
    with budget.lease() as lease:
        await lease.grow_to(3 * K)
        lease.keep()
    assert budget.used == 3 * K

    lease.end(is_last=True)
    lease.end(is_last=True)
    assert budget.used == 0
