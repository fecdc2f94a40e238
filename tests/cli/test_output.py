"""What commands show."""

from operator import itemgetter

import pytest

from lifesign.cli import output
from lifesign.cli.output import NowMs

NOON = NowMs(1_767_614_400_000)  # 2026-01-05T12:00:00Z


@pytest.mark.parametrize(
    ("moment", "wanted"),
    [
        ("2026-01-05T12:00:45.000Z", "in 45s"),
        ("2026-01-05T12:05:00.000Z", "in 5m"),
        ("2026-01-05T13:30:59.000Z", "in 1h 30m"),
        ("2026-01-03T09:00:00.000Z", "2d 3h ago"),
        ("2026-01-05T12:00:00.000Z", "0s ago"),
        ("2026-01-05T11:59:59.600Z", "0s ago"),
    ],
)
def test_a_time_is_told_by_its_distance_from_now(moment: str, wanted: str) -> None:
    assert output.relative_to(moment, NOON) == wanted


def test_text_of_others_cannot_steer_the_terminal_or_break_the_line() -> None:
    assert output.safe("a\x1b[2Jb\nc\u2028d\x9b") == "a [2Jb c d "


def test_in_a_pipe_a_table_is_neither_cut_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"status": "firing", "name": "x" * 300, "none": None}, {"status": "active", "name": "y", "none": None}]

    output.print_rows(rows, [(name, itemgetter(name)) for name in ("status", "none", "name")], empty="nothing")

    assert capsys.readouterr().out == f"status  name\nfiring  {'x' * 300}\nactive  y\n"


def test_no_rows_leave_standard_output_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_rows([], [("name", lambda row: row["name"])], empty="no heartbeats")

    assert capsys.readouterr() == ("", "no heartbeats\n")


def test_fields_without_a_value_are_left_out_and_the_others_are_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields([("name", "a"), ("tags", []), ("metadata", {"b": 1}), ("armed", False), ("policy", None)])

    assert capsys.readouterr().out == 'name      a\nmetadata  {"b": 1}\narmed     no\n'
