"""A clock that is put forward or back: what is told, kept, charged and deleted. Spec "Telemetry", 2.7, 5, 6, 8."""

from lifesign.clock import EpochMs
from tests.harness import Lifesign, MakeLifesign
from tests.telemetry.senders import Sender, sender
from tests.telemetry.test_keeping import in_session
from tests.telemetry.test_reads import read

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 24 * 3600


def step(lifesign: Lifesign, seconds: int) -> None:
    """Put the clock forward or back at once: nothing happens on the way."""
    lifesign.clock.set(EpochMs(lifesign.now() + seconds * 1000))


async def told(ours: Sender) -> tuple[list[int], list[tuple[str, int]]]:
    """The numbers of the records of the last hour; the sessions of the last day, and how many records each has."""
    records = (await read(ours, "/v1/telemetry"))["records"]
    sessions = (await read(ours, "/v1/sessions"))["sessions"]
    return [int(each["span_id"], 16) for each in records], [(each["session_id"], each["turns"]) for each in sessions]


async def test_what_arrived_before_a_step_back_is_told_again_once_its_time_has_come(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(in_session(1, "early"))
        await lifesign.advance(30 * _MINUTE_S)
        await ours.told(in_session(2, "across"), in_session(3, "ahead"))
        step(lifesign, -20 * _MINUTE_S)

        await ours.told(in_session(4, "across"))
        await lifesign.advance(1)
        after_the_step = await told(ours)
        again = await ours.told(in_session(2, "across"))
        await lifesign.advance(25 * _MINUTE_S)

        # A window ends now, and a session is told whole as soon as something of it arrived in the window.
        assert after_the_step == ([4, 1], [("across", 2), ("early", 1)])
        assert again == {"ok": True, "accepted": 1, "rejected": 0}
        assert await told(ours) == ([2, 3, 4, 1], [("across", 2), ("ahead", 1), ("early", 1)])
        assert await ours.used() == 4


async def test_what_arrived_before_a_step_forward_is_as_old_as_the_clock_says(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(in_session(1, "early"))
        step(lifesign, 2 * _HOUR_S)
        await ours.told(in_session(2, "late"))
        await lifesign.advance(1)

        assert await told(ours) == ([2], [("late", 1), ("early", 1)])


async def test_the_newest_arrival_is_told_though_it_lies_ahead_of_the_clock(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, lifesign.client(ours.agent_key) as agent:
        await ours.told(in_session(1, "ahead"))
        step(lifesign, -_HOUR_S)

        page = await read(ours, "/v1/telemetry")
        packet = (await agent.post("/v1/runs/diagnose")).json()["packet"]

    assert page["records"] == []
    assert page["ingest"] == {"pending_records": 0, "last_received_at": "2026-01-05T12:00:00.000Z"}
    assert packet["telemetry_read"] == 0


async def test_each_month_keeps_its_own_quota_however_the_clock_goes(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(quota_spans=2) as lifesign, sender(lifesign) as ours:
        await ours.told(in_session(1, "january"), in_session(2, "january"))
        step(lifesign, 31 * _DAY_S)
        await ours.told(in_session(3, "february"))
        step(lifesign, -31 * _DAY_S)

        refused = await ours.told(in_session(4, "january"), expect=429)
        january = (await read(ours, "/v1/dashboard"))["quota"]
        step(lifesign, 31 * _DAY_S)
        february = (await read(ours, "/v1/dashboard"))["quota"]

    assert refused["error"] == "quota_exceeded"
    assert (january["used"], january["resets_at"]) == (2, "2026-02-01T00:00:00.000Z")
    assert (february["used"], february["resets_at"]) == (1, "2026-03-01T00:00:00.000Z")


async def test_records_are_deleted_in_time_although_the_clock_was_years_ahead(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(telemetry_retention_days=1) as lifesign, sender(lifesign) as ours:
        step(lifesign, 1000 * _DAY_S)
        await lifesign.advance(_MINUTE_S)
        step(lifesign, -1000 * _DAY_S)
        await ours.told(in_session(1, "old"))
        await lifesign.advance(_DAY_S + _HOUR_S)

        assert (await read(ours, "/v1/telemetry?since_minutes=43200"))["records"] == []
        assert (await read(ours, "/v1/dashboard"))["store"]["oldest_received_at"] is None
