"""A check of Healthchecks in our words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.importing.healthchecks import (
    Known,
    NotACheck,
    Present,
    ReadOnlyKey,
    channels_in,
    checks_in,
    flips_in,
    translated,
)

UUID = "0b7b1f6e-9c5e-4b8a-9d5e-0d3c6f2a1b4c"
# As version 3 of the API tells it.
CHECK: dict[str, Any] = {
    "name": "Nightly backup",
    "slug": "nightly-backup",
    "tags": "db prod db",
    "desc": "of the big database",
    "grace": 3600,
    "n_pings": 7,
    "status": "up",
    "started": False,
    "last_ping": "2026-01-05T11:00:00+00:00",
    "next_ping": "2026-01-06T11:00:00+00:00",
    "manual_resume": False,
    "methods": "",
    "subject": "",
    "subject_fail": "",
    "start_kw": "",
    "success_kw": "",
    "failure_kw": "",
    "filter_subject": False,
    "filter_body": False,
    "filter_http_body": False,
    "filter_default_fail": False,
    "uuid": UUID,
    "ping_url": f"https://hc.example.org/ping/{UUID}",
    "channels": "c-1,c-2",
    "timeout": 86400,
}
CRON = {name: value for name, value in CHECK.items() if name != "timeout"} | {
    "schedule": "0 2 * * *",
    "tz": "Europe/Riga",
}


def test_a_check_with_a_period() -> None:
    found = translated(CHECK)

    assert (found.uuid, found.name, found.channels, found.remarks) == (UUID, "Nightly backup", ("c-1", "c-2"), ())
    assert found.body == {
        "name": "Nightly backup",
        "slug": "nightly-backup",
        "mode": "recurring",
        "interval": 86400,
        "grace": 3600,
        "tags": ["db", "prod"],
        "description": "of the big database",
        "stickyPause": False,
        "pingId": UUID,
        "origin": "import",
    }


@pytest.mark.parametrize("schedule", ["0 2 * * *", "Mon..Fri 06:30"])
def test_a_check_with_a_schedule(schedule: str) -> None:
    body = translated(CRON | {"schedule": schedule}).body

    assert (body["mode"], body["schedule"], body["timezone"]) == ("scheduled", schedule, "Europe/Riga")
    assert "interval" not in body


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"status": "paused", "last_ping": None}, {"paused": True}),
        ({"status": "new", "last_ping": None}, {"armed": False}),
        ({"manual_resume": True}, {"stickyPause": True}),
        ({"name": ""}, {"name": "nightly-backup"}),
        (
            {"methods": "POST", "filter_body": True, "start_kw": "go"},
            {"pings": {"methods": "POST", "filterBody": True, "startKeywords": "go"}},
        ),
    ],
)
def test_what_is_unusual_is_taken_over(said: dict[str, Any], told: dict[str, Any]) -> None:
    assert translated(CHECK | said).body.items() >= told.items()


def test_without_a_name_and_a_slug_it_is_called_by_its_uuid() -> None:
    found = translated(CHECK | {"name": "", "slug": ""})

    assert found.name == "check 0b7b1f6e"
    assert "slug" not in found.body


def test_the_first_version_tells_the_uuid_in_an_address_and_keywords_of_subjects() -> None:
    old = {name: CHECK[name] for name in ("name", "tags", "grace", "timeout", "ping_url", "status", "last_ping")}

    found = translated(old | {"subject": "done", "subject_fail": "FAILED"})

    assert found.uuid == UUID
    assert found.body["pings"] == {"filterSubject": True, "successKeywords": "done", "failureKeywords": "FAILED"}


def test_a_name_of_several_lines_is_put_on_one_and_told() -> None:
    found = translated(CHECK | {"name": " Nightly\r\nbackup\tof  db\n"})

    assert (found.name, found.body["name"]) == ("Nightly backup of db", "Nightly backup of db")
    assert found.remarks == ("its name has line breaks or the like; here it stands on one line",)


def test_a_slug_that_is_none_here_is_told() -> None:
    found = translated(CHECK | {"slug": "hb_x"})

    assert "slug" not in found.body
    assert found.remarks == ("the slug 'hb_x' is none here; another is made from the name",)


def test_a_key_that_may_only_read_is_told() -> None:
    hidden = {name: CHECK[name] for name in CHECK if name not in {"uuid", "ping_url"}}

    with pytest.raises(ReadOnlyKey):
        translated(hidden | {"unique_key": "a6c7b0a8a66bed0df66abfdab3c77736861703ee"})


def test_flips_become_events_oldest_first() -> None:
    flips = [
        {"timestamp": "2026-01-05T11:00:00+00:00", "up": 1},
        {"timestamp": "2026-01-05T10:00:00.123456+00:00", "up": 0},
    ]
    told = [
        {"type": "firing", "createdAt": "2026-01-05T10:00:00.123456+00:00"},
        {"type": "resolved", "createdAt": "2026-01-05T11:00:00+00:00"},
    ]

    assert flips_in(flips) == flips_in({"flips": flips}) == told


@pytest.mark.parametrize(
    "flip",
    [
        {"timestamp": "2026-01-05T10:00:00+00:00", "up": []},
        {"timestamp": "2026-01-05T10:00:00+00:00", "up": 2},
        {"timestamp": "2026-01-05T10:00:00+00:00"},
        {"timestamp": "2026-01-05T10:00:00", "up": 1},
        {"timestamp": "yesterday", "up": 1},
        {"up": 1},
        "up",
    ],
)
def test_a_flip_that_is_none_is_told(flip: object) -> None:
    with pytest.raises(NotACheck):
        flips_in([{"timestamp": "2026-01-05T11:00:00+00:00", "up": 1}, flip])


@pytest.mark.parametrize("answer", [None, [], {}, {"checks": {}}, {"checks": None}, "x"])
def test_an_answer_without_checks_is_none(answer: object) -> None:
    with pytest.raises(NotACheck):
        checks_in(answer)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*CHECK, "schedule", "tz"]), _JSON))
def test_whatever_a_check_says_is_translated_or_refused(said: dict[str, object]) -> None:
    try:
        found = translated(CHECK | said)
    except (NotACheck, ReadOnlyKey):
        return
    assert found.body["pingId"] == found.uuid


@given(_JSON)
def test_whatever_a_server_answers_is_understood_or_refused(answer: object) -> None:
    for understood in (checks_in, channels_in, flips_in):
        try:
            understood(answer)
        except NotACheck:
            continue


# What is here already -----------------------------------------------------------------------------------------------
def test_what_is_here_stands_in_the_way_or_is_the_same() -> None:
    ping_url = f"http://x/ping/{UUID}"
    check = translated(CHECK)

    assert Present([]).of(check) is None
    assert Present([{"id": "hb_1", "slug": "a", "pingUrl": ping_url, "origin": "import"}]).of(check) == Known(
        "hb_1", "a", UUID, "import"
    )
    assert (
        Present([{"id": "hb_1", "slug": "a", "pingUrl": ping_url}]).of(check) == "its UUID is that of the heartbeat a"
    )
    assert Present([{"id": "hb_1", "slug": "nightly-backup"}]).of(check) == "its slug nightly-backup is taken"
