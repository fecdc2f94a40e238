"""What people type, and what it means."""

import io
import sys
from pathlib import Path

import pytest

from lifesign.cli import values
from lifesign.cli.errors import WrongUsage


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("90", 90),
        ("0", 0),
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("2d", 172_800),
        ("1w", 604_800),
        ("1h30m", 5400),
        (" 1D ", 86_400),
        ("1d2h3m4s", 93_784),
    ],
)
def test_a_duration_is_read_in_seconds_or_with_units(text: str, wanted: int) -> None:
    assert values.seconds(text, "--every") == wanted


@pytest.mark.parametrize("text", ["", " ", "x", "1x", "-5m", "1.5h", "5m1h", "1 h", "²", "9" * 13, "1e3"])
def test_what_is_no_duration_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(WrongUsage, match=r"--every: .* is not a duration"):
        values.seconds(text, "--every")


def test_a_moment_with_any_offset_is_sent_in_utc() -> None:
    assert values.moment("2027-03-01T09:00:00+01:00", "--expires") == "2027-03-01T08:00:00.000Z"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2030-12-31", r"no offset from UTC; write for example 2030-12-31T00:00:00Z$"),
        ("2030-12-31T08:00", r"no offset from UTC; write for example 2030-12-31T08:00Z$"),
        ("tomorrow", r"neither a time nor a duration; write for example 2030-12-31T18:00:00Z or 30d$"),
    ],
)
def test_what_is_no_moment_is_refused_with_one_that_is(text: str, told: str) -> None:
    with pytest.raises(WrongUsage, match=rf"^--start: '{text}' .*{told}") as refused:
        values.moment(text, "--start")

    example = str(refused.value).rpartition("for example ")[2].partition(" or ")[0]
    assert values.moment(example, "--start").startswith("2030-12-31T")


def test_a_moment_without_an_offset_is_refused() -> None:
    with pytest.raises(WrongUsage, match="no offset"):
        values.moment("2027-03-01T09:00:00", "--expires")


def test_a_duration_in_place_of_a_moment_counts_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifesign.clock.SystemClock.now", lambda _self: 1_767_614_400_000)  # 2026-01-05T12:00Z

    assert values.moment("30d", "--expires") == "2026-02-04T12:00:00.000Z"
    assert values.moment("60", "--expires") == "2026-01-05T12:01:00.000Z"


def test_json_is_read_from_the_option_from_a_file_and_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.json").write_text('{"from": "file"}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"from": "stdin"}')))

    assert values.json_object('{"from": "option"}', "--metadata") == {"from": "option"}
    assert values.json_object(f"@{tmp_path / 'm.json'}", "--metadata") == {"from": "file"}
    assert values.json_object("-", "--metadata") == {"from": "stdin"}


@pytest.mark.parametrize("text", ["{", "[]", "1", "null", "@nowhere.json"])
def test_metadata_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match="--metadata: "):
        values.json_object(text, "--metadata")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ch_1", {"channels": ["ch_1"]}),
        ("ch_1,ch_2", {"channels": ["ch_1", "ch_2"]}),
        ("ch_1:wait=5m", {"channels": ["ch_1"], "wait": 300}),
        ("ch_1:message=now: at 12:30", {"channels": ["ch_1"], "message": "now: at 12:30"}),
        ("ch_1:wait=0:message={{name}}, late", {"channels": ["ch_1"], "wait": 0, "message": "{{name}}, late"}),
        ("ch_1:message=wait=5m", {"channels": ["ch_1"], "message": "wait=5m"}),
    ],
)
def test_a_step_is_channels_then_wait_then_message(text: str, wanted: dict[str, object]) -> None:
    assert values.step(text) == wanted


@pytest.mark.parametrize("text", ["", ":wait=5m", ",", "ch_1:wait", "ch_1:delay=5m", "ch_1:wait=soon", "ch_1:message"])
def test_a_step_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match="--step"):
        values.step(text)


def test_a_secret_file_wins_over_the_variable_and_loses_its_line_break(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")

    assert values.secret("from-variable", str(tmp_path / "key"), "--routing-key") == "from-file"


def test_a_missing_secret_names_every_way_to_give_it() -> None:
    with pytest.raises(WrongUsage, match=r"--routing-key, --routing-key-file FILE .* LIFESIGN_PAGERDUTY_ROUTING_KEY"):
        values.required_secret(None, None, "--routing-key", "LIFESIGN_PAGERDUTY_ROUTING_KEY")


def test_headers_are_parted_at_the_first_colon() -> None:
    assert values.headers(["X-Team: ops", "X-Url:http://x:1"], "--header") == {"X-Team": "ops", "X-Url": "http://x:1"}
    with pytest.raises(WrongUsage, match="--header"):
        values.headers(["nothing"], "--header")
