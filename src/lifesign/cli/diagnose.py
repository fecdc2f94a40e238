"""`lifesign diagnose`: what stands out in a window of telemetry, on the terminal."""

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lifesign.cli import options
from lifesign.cli.errors import CommandFailed, Refused, Unreachable
from lifesign.cli.numbers import finite
from lifesign.cli.output import (
    now,
    print_bytes,
    print_fields,
    print_json,
    print_rows,
    safe,
    safe_lines,
    whole_file,
)
from lifesign.cli.remote import Api
from lifesign.cli.values import Json

_MAX_MINUTES = 43_200
_LONGEST_PAUSE_S = 86_400
_OBSERVE_MORE = 3
_ROUTE = "/v1/runs/diagnose"
_TOLD_AT_LENGTH = 5
_SHOWN_IDS = 3
# The server waits for the diagnosis before for up to 30 s, and takes up to 60 s for this one.
PATIENCE_S = 100.0
# To the upper left, and nothing below.
_REDRAW = "\x1b[H\x1b[2J"


class Format(StrEnum):
    """How a diagnosis is shown."""

    table = "table"
    json = "json"
    md = "md"


def diagnose(
    *,
    since_minutes: Annotated[
        int, typer.Option("--since-minutes", min=1, max=_MAX_MINUTES, help="What arrived within so many minutes.")
    ] = 60,
    environment: Annotated[
        str | None, typer.Option("--environment", help="Only records of exactly this environment.")
    ] = None,
    shape: Annotated[
        Format, typer.Option("--format", help="For people, for programs, or for a ticket.")
    ] = Format.table,
    watch_s: Annotated[
        float | None,
        typer.Option(
            "--watch",
            metavar="SECONDS",
            min=1,
            max=_LONGEST_PAUSE_S,
            callback=finite,
            help="Diagnose again at this pace, until interrupted.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write what follows from it as improvement-packet.json, too."),
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> int:
    """Diagnose a window of telemetry. Exit codes: 0 ready to be acted on, 3 observe more, 1 failed, 2 wrong usage."""
    body: dict[str, Json] = {"since_minutes": since_minutes, "environment": environment}
    with options.kept_api(url, key, timeout_s=PATIENCE_S) as api:
        packet = _diagnosed(api, body)
        _show(packet, shape, out, url.rstrip("/"))
        while watch_s is not None:
            time.sleep(watch_s)
            try:
                packet = _diagnosed(api, body)
                if sys.stdout.isatty():
                    print(_REDRAW, end="")
                _show(packet, shape, out, url.rstrip("/"))
            except CommandFailed as error:
                # It worked once: whoever watches wants to see it work again.
                print(f"lifesign: {safe_lines(str(error))}", file=sys.stderr)
    return 0 if packet["status"] != "observe_more" else _OBSERVE_MORE


def _diagnosed(api: Api, body: dict[str, Json]) -> dict[str, Json]:
    """The packet. Raises CommandFailed for whatever goes wrong: other codes have other meanings here."""
    try:
        packet = api.post(_ROUTE, body).get("packet")
    except (Refused, Unreachable) as error:
        raise CommandFailed(str(error)) from None
    if not isinstance(packet, dict) or "packet_id" not in packet:
        raise CommandFailed("got an answer without a packet; does the address belong to a Lifesign server?")
    return packet


def _show(packet: dict[str, Json], shape: Format, out: Path | None, url: str) -> None:
    _SHAPES[shape](packet, url)
    if out is None:
        return
    import json

    from lifesign.clock import EpochMs, rfc3339
    from lifesign.diagnosis.manifest import manifest_of
    from lifesign.ids import new_id

    made_at = EpochMs(now())
    manifest = manifest_of(packet, run_id=new_id("run", made_at), created_at=rfc3339(made_at))
    with whole_file(out) as write:
        write(json.dumps(manifest, ensure_ascii=False, indent=2).encode() + b"\n")


def _show_table(packet: dict[str, Json], url: str) -> None:
    from lifesign.diagnosis.texts import particulars

    window = packet["window"]
    print_fields(
        [
            ("project", packet["project_id"]),
            ("packet", packet["packet_id"]),
            ("window", f"{window['since']} to {window['until']}"),
            ("environment", packet["environment"]),
            ("records", f"{packet['telemetry_read']:,} in {packet['sessions']:,} sessions"),
            ("failures", f"{packet['failures']:,}"),
            ("status", str(packet["status"]).replace("_", " ")),
        ]
    )
    print()
    print_rows(
        packet["issues"],
        [
            ("severity", lambda issue: issue["severity"]),
            ("issue", lambda issue: issue["title"]),
            ("count", lambda issue: issue["count"]),
            ("sessions", lambda issue: issue["sessions_hit"]),
            ("state", lambda issue: issue["state"]),
            ("next", lambda issue: issue["next_action"]),
        ],
        empty="no issues",
    )
    if packet["omitted_issues"]:
        print(f"and {packet['omitted_issues']:,} more")
    for number, issue in enumerate(packet["issues"][:_TOLD_AT_LENGTH], 1):
        print(f"\n{number}. {safe(str(issue['title']))}")
        ids = issue["evidence_ids"]
        more = f", and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
        evidence = f"{', '.join(ids[:_SHOWN_IDS])}{more}"
        print_fields([*particulars(issue), ("evidence", evidence), ("next", issue["next_action"])])
    if packet["issues"]:
        print(f"\nrecords by their ids: {url}/records/ID when signed in, or GET {url}/v1/telemetry?ids=ID,ID")
    for notice in packet["notices"]:
        print(f"note: {safe(str(notice['message']))} ({notice['count']:,})")


def _show_markdown(packet: dict[str, Json], url: str) -> None:
    from lifesign.diagnosis.report import of_packet

    print_bytes(of_packet(str(packet["project_id"]), packet, base=url).encode(errors="replace"))


_SHAPES: dict[Format, Callable[[dict[str, Json], str], None]] = {
    Format.table: _show_table,
    Format.json: lambda packet, _url: print_json(packet),
    Format.md: _show_markdown,
}
