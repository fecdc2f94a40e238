"""What commands show, and the files that they write."""

import os
from operator import itemgetter
from pathlib import Path

import pytest

from lifesign.cli import output
from lifesign.cli.errors import CommandFailed
from lifesign.cli.output import NowMs, whole_file

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
    assert output.safe_lines("a\x1b[2Jb\nc\rd\n") == "a [2Jb\nc d\n"


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


# Files --------------------------------------------------------------------------------------------------------------
def test_a_file_is_replaced_when_all_of_it_is_there_and_stays_as_secret_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"before")
    path.chmod(0o600)

    with whole_file(path) as write:
        write(b"af")
        meanwhile = path.read_bytes()
        write(b"ter")

    assert (meanwhile, path.read_bytes()) == (b"before", b"after")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]


def test_what_fails_on_the_way_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"before")

    def failing() -> None:
        with whole_file(path) as write:
            write(b"half")
            raise CommandFailed("the server is gone")

    with pytest.raises(CommandFailed, match="the server is gone"):
        failing()

    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["out.json"]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    file, link = tmp_path / "file.json", tmp_path / "link.json"
    file.write_bytes(b"before")
    link.symlink_to(file)

    with whole_file(link) as write:
        write(b"after")

    assert link.is_symlink()
    assert file.read_bytes() == b"after"


def test_what_is_no_file_takes_what_is_written_and_stays(tmp_path: Path) -> None:
    # As /dev/null would: whoever is root could put a file in its place.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    with whole_file(pipe) as write:
        write(b"all of it")
    read = os.read(reader, 100)
    os.close(reader)

    assert read == b"all of it"
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "Is a directory"),
        ("", "Is a directory"),
        ("nowhere/out.json", "No such file or directory"),
        ("x" * 256, "File name too long"),
    ],
)
def test_a_place_that_takes_no_file_is_named(tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name

    with pytest.raises(CommandFailed, match=words) as told, whole_file(path) as write:
        write(b"x")

    assert str(told.value).startswith(f"cannot write {path}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_be_as_long_as_names_are(tmp_path: Path) -> None:
    path = tmp_path / ("\u00fc" * 127)

    with whole_file(path) as write:
        write(b"x")

    assert path.read_bytes() == b"x"
