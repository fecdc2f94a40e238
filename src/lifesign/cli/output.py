"""What commands show: tables for people, plain columns for pipes, JSON for scripts."""

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NewType

from lifesign.cli.errors import CommandFailed
from lifesign.cli.values import Json

# Colour only for states; everything else keeps the colours of the terminal.
_STATE_STYLES: Mapping[str, str] = {
    "active": "green",
    "ok": "green",
    "sent": "green",
    "delivered": "green",
    "firing": "bold red",
    "open": "bold red",
    "fail": "bold red",
    "dead": "bold red",
    "permanent": "bold red",
    "paused": "yellow",
    "warn": "yellow",
    "retry": "yellow",
}
_STATE_COLUMNS = frozenset({"status", "result"})
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_COLUMN_GAP = "  "
_KEPT_OF_A_NAME = 40
_PERMISSIONS = 0o777

NowMs = NewType("NowMs", int)
Column = tuple[str, Callable[[dict[str, Json]], object]]
"""Heading, and what of a row stands under it."""


def print_json(body: Json) -> None:
    """JSON as the server said it, in UTF-8 whatever the locale: indented on a terminal, one line elsewhere."""
    indent = 2 if sys.stdout.isatty() else None
    print_bytes(json.dumps(body, ensure_ascii=False, indent=indent).encode() + b"\n")


def print_bytes(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Write a file piece by piece: the whole of it or, when that fails, the one before. Raises CommandFailed.

    Of a link the file that it leads to. What is no file, like /dev/null or a pipe, takes the pieces as they come.
    """
    try:
        # Whoever is root would put a file in the place of a device, for all of the machine.
        is_other = path.exists() and not path.is_file()
        with _opened(path) if is_other else _replacing(Path(os.path.realpath(path))) as file:

            def write(content: bytes) -> None:
                file.write(content)

            yield write
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from None


def _opened(path: Path) -> BinaryIO:
    return path.open("wb")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another once all of it is there, for whoever might read that one."""
    # Short, so that it is no longer than a name may be where the other is not.
    part = path.with_name(f".{path.name[:_KEPT_OF_A_NAME]}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            if path.exists():
                part.chmod(path.stat().st_mode & _PERMISSIONS)
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def print_rows(rows: Sequence[dict[str, Json]], columns: Sequence[Column], *, empty: str) -> None:
    """A table; columns without any value are left out. empty: what to say, to the person, when there are no rows."""
    if not rows:
        print(empty, file=sys.stderr)
        return
    cells = [[_cell(show(row)) for _, show in columns] for row in rows]
    kept = [index for index in range(len(columns)) if any(line[index] for line in cells)]
    headings = [columns[index][0] for index in kept]
    _print_table(headings, [[line[index] for index in kept] for line in cells])


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing, a line for each of its fields that has a value."""
    lines = [(name, _cell(value)) for name, value in pairs]
    shown = [(name, value) for name, value in lines if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}{_COLUMN_GAP}{_state(value) if name in _STATE_COLUMNS else value}")


def tell_more(body: Mapping[str, Json]) -> None:
    """Say that a list goes on, where it does."""
    if "nextCursor" in body:
        print("there are more; --limit shows them", file=sys.stderr)


def relative(text: Json) -> str:
    """`in 5m`, `3h ago`: a time of the server against the clock of this machine."""
    return relative_to(text, now()) if isinstance(text, str) else ""


def relative_to(text: str, now_ms: NowMs) -> str:
    distance_s = round(datetime.fromisoformat(text).timestamp() - now_ms / 1000)
    span = short_span(abs(distance_s))
    return f"in {span}" if distance_s > 0 else f"{span} ago"


def now() -> NowMs:
    from lifesign.clock import SystemClock

    return NowMs(SystemClock().now())


def short_span(seconds: int) -> str:
    """The two largest units of a number of seconds: `45s`, `5m`, `1h 30m`, `2d 3h`."""
    for unit_s, unit, next_s, next_unit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "m"),
        (_MINUTE, "m", 1, "s"),
    ):
        if seconds >= unit_s:
            rest = seconds % unit_s // next_s
            return f"{seconds // unit_s}{unit} {rest}{next_unit}" if rest else f"{seconds // unit_s}{unit}"
    return f"{seconds}s"


def safe(text: str) -> str:
    """Text of others on one line, and unable to steer the terminal."""
    return "".join(" " if unicodedata.category(each) in {"Cc", "Zl", "Zp"} else each for each in text)


def safe_lines(text: str) -> str:
    """The same of a text that may have several lines."""
    return "\n".join(map(safe, text.split("\n")))


def _cell(value: object) -> str:
    if value is None or value in ("", [], {}):
        return ""
    match value:
        case bool():
            return "yes" if value else "no"
        case list() if all(isinstance(each, str) for each in value):
            return safe(", ".join(value))
        case list() | dict():
            return safe(json.dumps(value, ensure_ascii=False))
        case _:
            return safe(str(value))


def _state(word: str) -> str:
    """A state in its colour, on a terminal that shows any."""
    if word not in _STATE_STYLES or not sys.stdout.isatty():
        return word
    from rich.console import Console
    from rich.text import Text

    console = Console()
    with console.capture() as capture:
        console.print(Text(word, style=_STATE_STYLES[word]), end="")
    return capture.get()


def _print_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    if not sys.stdout.isatty():
        # Nothing is folded or cut for a reader that is a program.
        widths = [max(len(line[index]) for line in [headings, *lines]) for index in range(len(headings))]
        for line in [headings, *lines]:
            print(_COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for line in lines:
        cells = zip(headings, line, strict=True)
        # Text, not strings: a name with [brackets] is no markup.
        table.add_row(
            *(
                Text(cell, style=_STATE_STYLES.get(cell, "") if heading in _STATE_COLUMNS else "")
                for heading, cell in cells
            )
        )
    Console().print(table)
