"""The ledger only ever grows: no packet and no verdict of an older window takes back what is known."""

from dataclasses import replace

import pytest

from lifesign.clock import SET_BACK_MS, EpochMs
from lifesign.diagnosis.issues import Issue, State
from lifesign.diagnosis.ledger import Entry, entered, judged_again
from lifesign.diagnosis.verdicts import Verdict


def issue(
    *, first: int = 100, last: int = 200, state: State = "new", count: int = 3, versions: tuple[str, ...] = ()
) -> Issue:
    return Issue(
        title="tool_call_failed on search",
        severity="medium",
        signal_type="tool_call_failed",
        count=count,
        evidence_ids=("rec_1",),
        traces=("1",),
        next_action="Look.",
        fingerprint="tool_call_failed:1",
        state=state,
        operation="search",
        error_type="Timeout",
        agent="clerk",
        sessions_hit=1,
        baseline_count=0,
        first_seen=EpochMs(first),
        last_seen=EpochMs(last),
        patterns=(),
        messages=(),
        discriminator=None,
        versions=versions,
        exposure=10,
        baseline_exposure=0,
    )


NOW = EpochMs(1000)


def after(before: Entry | None, told: Issue, packet_id: str = "pkt_2") -> Entry:
    return entered(before, told, environment="prod", packet_id=packet_id, now=NOW)


KNOWN = after(None, issue(versions=("1.0",)), "pkt_1")
FIXED = replace(KNOWN, state="fixed", fixed_at=EpochMs(300), fixed_version="1.1")


def test_what_a_clock_that_was_ahead_wrote_does_not_hold_against_what_is_told_now() -> None:
    ahead = EpochMs(NOW + SET_BACK_MS + 1)
    known = replace(FIXED, first_seen=ahead, last_seen=ahead, fixed_at=ahead, regressed_at=ahead)

    assert after(known, issue(first=100, last=200)) == replace(KNOWN, last_packet_id="pkt_2", versions=())


def test_a_packet_of_somebody_whose_clock_is_a_little_behind_adds_to_the_past_only() -> None:
    ahead = EpochMs(NOW + SET_BACK_MS)
    known = replace(FIXED, last_seen=ahead, fixed_at=ahead)

    assert after(known, issue(first=50, last=200)) == replace(known, first_seen=EpochMs(50))


def test_an_entry_is_what_the_first_packet_told() -> None:
    assert (
        Entry(
            environment="prod",
            fingerprint="tool_call_failed:1",
            ruleset="2026.11-1",
            signal_type="tool_call_failed",
            title="tool_call_failed on search",
            first_seen=EpochMs(100),
            last_seen=EpochMs(200),
            last_packet_id="pkt_1",
            state="new",
            count=3,
            exposure=10,
            versions=("1.0",),
        )
        == KNOWN
    )


def test_a_newer_packet_is_told_and_the_first_time_stays() -> None:
    newer = after(KNOWN, issue(first=250, last=400, state="ongoing", count=7, versions=("1.1",)))

    assert newer == replace(
        KNOWN, last_seen=EpochMs(400), last_packet_id="pkt_2", state="ongoing", count=7, versions=("1.1",)
    )


def test_a_packet_of_an_older_window_makes_it_older_and_nothing_else() -> None:
    assert after(KNOWN, issue(first=50, last=199, count=9)) == replace(KNOWN, first_seen=EpochMs(50))
    assert after(KNOWN, issue(first=150, last=199, count=9)) == KNOWN
    # The same window once more, or one that ends as late, is the last packet.
    assert after(KNOWN, issue(count=9)).last_packet_id == "pkt_2"


@pytest.mark.parametrize("state", ["new", "ongoing"])
def test_what_does_not_come_back_leaves_a_fix(state: State) -> None:
    told = after(FIXED, issue(first=350, last=400, state=state))

    assert (told.state, told.fixed_at, told.fixed_version, told.regressed_at) == ("fixed", 300, "1.1", None)
    assert (told.last_seen, told.last_packet_id) == (400, "pkt_2")


def test_what_comes_back_has_regressed_since_it_was_first_told() -> None:
    back = after(FIXED, issue(first=350, last=400, state="regressed"))
    again = after(back, issue(first=350, last=500, state="regressed"), "pkt_3")
    older = after(again, issue(first=550, last=600, state="ongoing"), "pkt_4")

    assert (back.state, back.fixed_at, back.regressed_at) == ("regressed", 300, 400)
    assert (again.state, again.last_seen, again.regressed_at) == ("regressed", 500, 400)
    assert (older.state, older.regressed_at) == ("regressed", 400)


def test_what_comes_back_in_the_millisecond_of_the_fix_has_regressed_then() -> None:
    # The window that proved the fix ends before it.
    back = after(FIXED, issue(first=300, last=300, state="regressed"))
    again = after(back, issue(first=300, last=500, state="regressed"), "pkt_3")

    assert (back.regressed_at, again.regressed_at) == (300, 300)


def test_what_comes_back_after_a_second_fix_has_regressed_anew() -> None:
    back = after(FIXED, issue(last=400, state="regressed"))
    fixed = judged(back, "fixed", end=700)
    anew = after(fixed, issue(last=800, state="regressed"))

    assert (fixed.state, fixed.fixed_at, fixed.regressed_at) == ("fixed", 700, 400)
    assert (anew.state, anew.regressed_at) == ("regressed", 800)


def judged(
    before: Entry, verdict: Verdict, told: Issue | None = None, *, end: int = 1000, versions: tuple[str, ...] = ()
) -> Entry:
    return judged_again(before, verdict, told, window_end=EpochMs(end), versions=versions)


def test_a_fix_has_the_end_of_its_window_and_the_newest_version_in_it() -> None:
    fixed = judged(KNOWN, "fixed", versions=("1.9", "1.10"))

    assert fixed == replace(KNOWN, state="fixed", fixed_at=EpochMs(1000), fixed_version="1.10")


@pytest.mark.parametrize(("end", "expected"), [(299, (300, "1.1")), (300, (300, "1.1")), (301, (301, "2.0"))])
def test_no_earlier_window_takes_back_a_fix(end: int, expected: tuple[int, str]) -> None:
    fixed = judged(FIXED, "fixed", end=end, versions=("2.0",))

    assert (fixed.fixed_at, fixed.fixed_version) == expected


def test_a_verdict_of_regression_counts_when_the_records_say_so() -> None:
    back = judged(FIXED, "regressed", issue(last=400, state="regressed"))

    assert (back.state, back.regressed_at, back.fixed_at) == ("regressed", 400, 300)
    assert judged(back, "regressed", issue(last=500, state="regressed")).regressed_at == 400
    assert judged(FIXED, "regressed", issue(state="ongoing")) == FIXED
    assert judged(FIXED, "regressed") == FIXED


@pytest.mark.parametrize("verdict", ["unverified", "ongoing"])
def test_other_verdicts_are_told_of_what_was_never_fixed_and_not_seen_since(verdict: Verdict) -> None:
    assert judged(KNOWN, verdict, end=201) == replace(KNOWN, state=verdict)
    assert judged(KNOWN, verdict, end=200) == KNOWN
    assert judged(FIXED, verdict) == FIXED
