import pytest

from lifesign.clock import EpochMs, parse_timestamp
from lifesign.events.rules import EVENT_TYPES
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats.definition import Definition
from lifesign.web import forms, telling

NOW = EpochMs(parse_timestamp("2026-03-07T12:00:00.000Z"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h 30m", 5400),
        ("1h30min", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("soon", "soon"),
        ("1h x", "1h x"),
        ("-5", "-5"),
        ("", ""),
        ("1.5h", "1.5h"),
    ],
)
def test_durations_are_read_as_people_type_them(text: str, seconds: int | str) -> None:
    assert forms.seconds_of(text) == seconds


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 3661, 86_400, 694_861, 315_360_000])
def test_a_duration_that_is_shown_is_read_again_as_it_was(seconds: int) -> None:
    assert forms.seconds_of(forms.duration_of(seconds * 1000)) == seconds


def test_a_form_leaves_out_what_is_blank_and_what_belongs_to_another_mode() -> None:
    typed = {"name": "Backup", "mode": "scheduled", "interval": "1h", "schedule": "0 2 * * *", "tags": "a, b c"}

    assert forms.values_of(typed | {"namespace": "", "grace": "5m"}) == {
        "name": "Backup",
        "mode": "scheduled",
        "schedule": "0 2 * * *",
        "grace": 300,
        "tags": ["a", "b", "c"],
    }
    assert forms.changes_of({"name": "Backup"}) == {
        "name": "Backup",
        "policy": None,
        "namespace": None,
        "description": None,
        "tags": None,
    }


def test_faults_stand_at_their_fields_in_words_that_fit_them() -> None:
    error = InvalidInput(
        Fault("interval", "must be an integer"), Fault("tags[2]", "is empty"), Fault("slug", "is taken")
    )

    assert forms.faults_of(error) == {
        "interval": "must be a duration, such as 90s, 15m or 1h 30m",
        "tags": "is empty",
        "": "slug is taken",
    }


def test_the_next_five_deadlines_keep_to_the_clock_of_their_zone_over_a_change() -> None:
    nightly = Definition(name="x", mode="scheduled", schedule="0 8 * * *", timezone="America/New_York", grace_ms=0)

    found = forms.next_deadlines(nightly, NOW)

    assert found == [
        parse_timestamp(f"2026-03-{day:02}T{hour}:00:00.000Z")
        for day, hour in ((7, 13), (8, 12), (9, 12), (10, 12), (11, 12))
    ]


def test_a_one_shot_has_one_deadline() -> None:
    assert forms.next_deadlines(Definition(name="x", mode="oneshot", interval_ms=5000, grace_ms=0), NOW) == [NOW + 5000]


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_event_has_words_of_its_own(kind: str) -> None:
    assert kind in telling._WORDS  # noqa: SLF001 - a new kind of event would be told by its name only


def test_an_event_tells_who_did_it_and_what_else_is_known_but_no_ids() -> None:
    told = telling.told(
        7,
        "acked",
        '{"key":"usr_1","incident":"inc_1","actor":"x","escalationStep":2,"via":"api"}',
        NOW,
        people={"usr_1": "ada@example.org"},
    )

    assert told.person == "ada@example.org"
    assert told.details == (("actor", "x"), ("escalation step", "2"))
