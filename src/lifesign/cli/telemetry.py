"""`lifesign telemetry`: spans from a file to a server, and back."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from lifesign.cli import options
from lifesign.cli.errors import CommandFailed, Refused, Unreachable, WrongUsage
from lifesign.cli.output import print_bytes, safe, whole_file
from lifesign.cli.remote import Answer, Call, Send, over_kept_network, required_key, understood
from lifesign.cli.values import Json

if TYPE_CHECKING:
    from lifesign.cli.otlp_lines import Request

app = typer.Typer(help="Spans from a file to a server, and back.", no_args_is_help=True)

_STDIN = "-"
_PATH = "/v1/traces"
_BAD_REQUEST, _TOO_MANY, _UNAVAILABLE = 400, 429, 503
# A server that is too busy, or that starts anew, is asked again for five minutes.
_PATIENCE_S = 300.0
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_PER_PAGE = 200
_MAX_MINUTES = 43_200
_SHOWN_LINES = 5

File = Annotated[str, typer.Argument(metavar="FILE", help="OTLP in lines of JSON; - for standard input.")]


@app.callback()
def root() -> None:
    """Spans from a file to a server, and back."""


@app.command("import")
def import_(file: File, *, url: options.Url = options.DEFAULT_URL, key: options.Key = None) -> None:
    """Send the spans of a file to a server. Sending them again changes nothing."""
    from lifesign.cli.otlp_lines import requests_of

    sent = _Sent()
    with _opened(file) as stream, over_kept_network(url, required_key(key)) as send, _bar(stream) as advance:
        lines = _Lines(stream, advance)
        for request in requests_of(lines.groups()):
            _deliver(send, request, sent)
    _report(sent, lines)


@app.command("export")
def export(
    *,
    since_minutes: Annotated[
        int, typer.Option("--since-minutes", min=1, max=_MAX_MINUTES, help="What arrived within so many minutes.")
    ] = 60,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write to this file instead of standard output.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Write what a server has as OTLP JSON lines, which `lifesign telemetry import` takes; the newest come first."""
    import msgspec

    from lifesign.telemetry.wire import to_otlp

    count = 0
    with options.kept_api(url, key) as server, nullcontext(print_bytes) if out is None else whole_file(out) as write:
        cursor = None
        while True:
            page = server.get("/v1/telemetry", since_minutes=since_minutes, limit=_PER_PAGE, cursor=cursor)
            records: list[dict[str, Json]] = page["records"]
            if records:
                write(msgspec.json.encode(to_otlp(records)) + b"\n")
            count += len(records)
            cursor = page["next_cursor"]
            if cursor is None:
                break
    print(f"lifesign: {count:,} span{'' if count == 1 else 's'} written", file=sys.stderr)


# Reading -------------------------------------------------------------------------------------------------------------
@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(file).open("rb")  # noqa: SIM115 - closed below; what fails inside the block is another's failure
    except OSError as error:
        raise WrongUsage(f"cannot read {file}: {error.strerror}") from None
    with stream:
        yield stream


@dataclass(slots=True)
class _Lines:
    """The lines of a file, and which of them were no requests for traces."""

    stream: BinaryIO
    advance: Callable[[int], None]
    bad: list[str] = field(default_factory=list)
    bad_count: int = 0
    other_signals: int = 0

    def groups(self) -> Iterator[tuple[int, dict[str, Json]]]:
        """Every resource with its spans, beside the number of its line."""
        from lifesign.cli.otlp_lines import NotOtlp, OtherSignal, groups_in

        for number, line in enumerate(self.stream, 1):
            if line.strip():
                try:
                    yield from ((number, group) for group in groups_in(line))
                except OtherSignal:
                    self.other_signals += 1
                except NotOtlp as error:
                    self.bad_count += 1
                    if len(self.bad) < _SHOWN_LINES:
                        self.bad.append(f"line {number} {error}")
            self.advance(len(line))


# Sending -------------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Sent:
    """What the server said so far. reasons: of the first requests of which it did not take everything."""

    accepted: int = 0
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, answer: dict[str, Json], request: "Request") -> None:
        """One more answer. A server that is strict about the protocol tells only what it rejected."""
        partial = answer.get("partialSuccess") or {}
        rejected = int(partial.get("rejectedSpans", 0))
        self.rejected += rejected
        self.accepted += int(answer.get("accepted", request.spans - rejected))
        if rejected and len(self.reasons) < _SHOWN_LINES:
            self.reasons.append(f"{_place(request)}: {partial.get('errorMessage', '')}")


def _place(request: "Request") -> str:
    if request.first_line == request.last_line:
        return f"line {request.first_line}"
    return f"lines {request.first_line} to {request.last_line}"


def _deliver(send: Send, request: "Request", sent: _Sent) -> None:
    """Send one request, patiently. Raises Refused, Unreachable, CommandFailed, with what was sent before."""
    try:
        answer = _patient(send, Call("POST", _PATH, request.body), is_first=sent.accepted + sent.rejected == 0)
        sent.add(understood(answer, _PATH), request)
    except Refused as error:
        raise Refused(_stopped(error, request, sent), status=error.status) from None
    except CommandFailed as error:
        raise type(error)(_stopped(error, request, sent)) from None


def _patient(send: Send, call: Call, *, is_first: bool) -> Answer:
    """The answer, once the server has time. Whom nobody ever reached is not waited for."""
    waited_s = 0.0
    while True:
        try:
            answer = send(call)
        except Unreachable:
            if is_first or waited_s >= _PATIENCE_S:
                raise
            pause_s = _PAUSE_S
        else:
            # 429 means that the month's quota is used up, for which no command waits.
            if answer.status != _UNAVAILABLE or waited_s >= _PATIENCE_S:
                return answer
            pause_s = _retry_after_s(answer)
        time.sleep(pause_s)
        waited_s += pause_s


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return min(max(float(text), _PAUSE_S), _LONGEST_PAUSE_S) if text.isascii() and text.isdigit() else _PAUSE_S


def _stopped(error: CommandFailed, request: "Request", sent: _Sent) -> str:
    return f"{_place(request)}: {error}\n  {sent.accepted:,} spans were accepted before; importing again is safe"


# Telling -------------------------------------------------------------------------------------------------------------
def _report(sent: _Sent, lines: _Lines) -> None:
    print(f"{sent.accepted:,} accepted, {sent.rejected:,} rejected")
    for reason in sent.reasons:
        print(f"  {safe(reason)}")
    if lines.other_signals:
        print(f"lifesign: lines of other signals, left out: {lines.other_signals:,}", file=sys.stderr)
    if lines.bad_count:
        told = "\n  ".join(safe(each) for each in lines.bad)
        raise CommandFailed(f"lines that are no requests for traces, left out: {lines.bad_count:,}\n  {told}")
    if sent.rejected:
        raise Refused(f"{sent.rejected:,} spans were rejected", status=_BAD_REQUEST)


@contextmanager
def _bar(stream: BinaryIO) -> Iterator[Callable[[int], None]]:
    """A progress bar in bytes, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("importing", total=_size_of(stream))
        yield lambda size: bar.advance(task, size)


def _size_of(stream: BinaryIO) -> int | None:
    """Bytes of a file; None of what has no end yet."""
    import os
    import stat

    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
