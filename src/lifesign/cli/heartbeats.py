"""`lifesign heartbeats`: what must check in, and when."""

from typing import Annotated

import typer

from lifesign.cli import options, output, values
from lifesign.cli.errors import WrongUsage
from lifesign.cli.output import print_fields, print_json, print_rows, relative, short_span, tell_more
from lifesign.cli.remote import segment
from lifesign.cli.values import Json, given

app = typer.Typer(help="What must check in, and when.", no_args_is_help=True)

_PATH = "/v1/heartbeats"
_S = 1000
_CLEARABLE = (
    "policy",
    "namespace",
    "metadata",
    "description",
    "tags",
    "channels",
    "slug",
    "tolerance",
    "dependsOn",
)

Reference = Annotated[str, typer.Argument(metavar="REF", help="Id or slug of the heartbeat.")]
Every = Annotated[
    str | None,
    typer.Option("--every", metavar="DURATION", help="Must check in again within this: 90, 90s, 5m, 1h, 2d."),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="CRON", help="Must check in at the times of a cron expression: '0 2 * * *'."),
]
Once = Annotated[
    str | None, typer.Option("--once", metavar="DURATION", help="Must check in once, within this from now.")
]
Timezone = Annotated[
    str | None,
    typer.Option("--timezone", metavar="ZONE", help="Time zone of --at, such as Europe/Berlin; UTC by default."),
]
Grace = Annotated[
    str | None, typer.Option("--grace", metavar="DURATION", help="How late it may be before it fires; 60 s by default.")
]
Policy = Annotated[str | None, typer.Option("--policy", metavar="ID", help="Policy that says whom to tell.")]
Slug = Annotated[str | None, typer.Option("--slug", help="Short name for paths; made from the name by default.")]
Namespace = Annotated[str | None, typer.Option("--namespace", help="Groups heartbeats.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; repeatable.")]
Channels = Annotated[
    list[str] | None,
    typer.Option("--channel", metavar="ID", help="Channel told at once, beside the policy; repeatable."),
]
Metadata = Annotated[
    str | None, typer.Option("--metadata", metavar="JSON", help="A JSON object; @FILE reads a file, - standard input.")
]
Description = Annotated[str | None, typer.Option("--description", help="What the next person should know.")]
Tolerance = Annotated[
    str | None,
    typer.Option("--tolerance", metavar="K/N", help="Fire only when K of the last N results are bad: 2/3."),
]
DependsOn = Annotated[
    list[str] | None,
    typer.Option("--depends-on", metavar="REF", help="Tell nobody while this heartbeat fires; repeatable."),
]
StickyPause = Annotated[
    bool | None,
    typer.Option(
        "--sticky-pause/--no-sticky-pause", help="Whether a pause outlasts the next check-in; it does by default."
    ),
]


@app.command("list")
def list_heartbeats(
    *,
    status: Annotated[str | None, typer.Option("--status", help="active, firing, paused or resolved.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Exactly this namespace.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Has this tag; repeatable, all must match.")] = None,
    search: Annotated[str | None, typer.Option("--search", metavar="TEXT", help="Part of the name or slug.")] = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List heartbeats."""
    body = options.api(url, key).rows(_PATH, "heartbeats", limit, status=status, namespace=namespace, tag=tag, q=search)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("status", lambda row: row["status"]),
        ("slug", lambda row: row.get("slug")),
        ("name", lambda row: row["name"]),
        ("expects", _expects),
        ("last check-in", lambda row: relative(row.get("lastCheckin"))),
        ("next", lambda row: relative(row.get("nextDeadline"))),
        ("namespace", lambda row: row.get("namespace")),
        ("tags", lambda row: row.get("tags")),
    ]
    print_rows(body["heartbeats"], columns, empty="no heartbeats; make one: lifesign heartbeats create NAME --every 1h")
    tell_more(body)


@app.command("get")
def get_heartbeat(
    *,
    reference: Reference,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show a heartbeat."""
    _show(options.api(url, key).get(_path(reference)), as_json=as_json)


@app.command("create")
def create_heartbeat(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    every: Every = None,
    at: At = None,
    once: Once = None,
    timezone: Timezone = None,
    grace: Grace = None,
    policy: Policy = None,
    slug: Slug = None,
    namespace: Namespace = None,
    tag: Tags = None,
    channel: Channels = None,
    metadata: Metadata = None,
    description: Description = None,
    tolerance: Tolerance = None,
    depends_on: DependsOn = None,
    sticky_pause: StickyPause = None,
    unarmed: Annotated[bool, typer.Option("--unarmed", help="Watch it only from its first check-in on.")] = False,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Make a heartbeat: --every, --at or --once says when it must check in."""
    timing = _timing(every, at, once)
    if not timing:
        raise WrongUsage("say when it must check in: --every 1h, --at '0 2 * * *' or --once 6h")
    body = timing | given(
        name=name,
        timezone=timezone,
        grace=None if grace is None else values.seconds(grace, "--grace"),
        policy=policy,
        slug=slug,
        namespace=namespace,
        tags=tag,
        channels=channel,
        metadata=None if metadata is None else values.json_object(metadata, "--metadata"),
        description=description,
        tolerance=None if tolerance is None else _tolerance(tolerance),
        dependsOn=depends_on,
        stickyPause=sticky_pause,
        armed=False if unarmed else None,
    )
    _show(options.api(url, key).post(_PATH, body), as_json=as_json)


@app.command("update")
def update_heartbeat(
    *,
    reference: Reference,
    name: Annotated[str | None, typer.Option("--name", help="A new name; the slug stays.")] = None,
    every: Every = None,
    at: At = None,
    once: Once = None,
    timezone: Timezone = None,
    grace: Grace = None,
    policy: Policy = None,
    slug: Slug = None,
    namespace: Namespace = None,
    tag: Tags = None,
    channel: Channels = None,
    metadata: Metadata = None,
    description: Description = None,
    tolerance: Tolerance = None,
    depends_on: DependsOn = None,
    sticky_pause: StickyPause = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(
            "--clear",
            metavar="FIELD",
            help=f"Empty a field, one of {', '.join(_CLEARABLE)}; repeatable.",
        ),
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Change what is given and leave the rest; tags, channels and metadata are replaced whole."""
    changes = _timing(every, at, once) | given(
        name=name,
        timezone=timezone,
        grace=None if grace is None else values.seconds(grace, "--grace"),
        policy=policy,
        slug=slug,
        namespace=namespace,
        tags=tag,
        channels=channel,
        metadata=None if metadata is None else values.json_object(metadata, "--metadata"),
        description=description,
        tolerance=None if tolerance is None else _tolerance(tolerance),
        dependsOn=depends_on,
        stickyPause=sticky_pause,
    )
    changes |= _cleared(clear or [], changes)
    if not changes:
        raise WrongUsage("nothing to change; 'lifesign heartbeats update --help' lists what can be")
    _show(options.api(url, key).patch(_path(reference), changes), as_json=as_json)


@app.command("delete")
def delete_heartbeat(*, reference: Reference, url: options.Url = options.DEFAULT_URL, key: options.Key = None) -> None:
    """Delete a heartbeat with its history; an open incident closes."""
    options.api(url, key).delete(_path(reference))
    print(f"deleted heartbeat {reference}")


@app.command("pause")
def pause_heartbeat(
    *,
    reference: Reference,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Stop watching until resumed; an open incident closes."""
    body = options.api(url, key).post(f"{_path(reference)}/pause")
    _tell(body, f"paused {reference}", as_json=as_json)


@app.command("resume")
def resume_heartbeat(
    *,
    reference: Reference,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Watch a paused heartbeat again, from now."""
    body = options.api(url, key).post(f"{_path(reference)}/resume")
    _tell(body, f"resumed {reference}; {_next(body)}", as_json=as_json)


@app.command("ack")
def ack_heartbeat(
    *,
    reference: Reference,
    message: Annotated[str | None, typer.Option("--message", help="What the others should know.")] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Acknowledge a firing heartbeat: nobody else is told, and it is watched anew from now."""
    body = options.api(url, key).post(f"{_path(reference)}/ack", given(message=message))
    _tell(body, f"acknowledged {reference} after {body.get('escalationStep')} steps", as_json=as_json)


@app.command("snooze")
def snooze_heartbeat(
    *,
    reference: Reference,
    duration: Annotated[str, typer.Argument(metavar="DURATION", help="For so long: 30m, 2h, 1d.")],
    reason: Annotated[str | None, typer.Option("--reason", help="What the others should know.")] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Tell nobody for a while; while it fires, until the incident is over at most."""
    wanted = given(seconds=values.seconds(duration, "DURATION"), reason=reason)
    body = options.api(url, key).post(f"{_path(reference)}/snooze", wanted)
    _tell(body, f"snoozed {reference} until {body.get('snoozedUntil')}", as_json=as_json)


@app.command("unsnooze")
def unsnooze_heartbeat(
    *, reference: Reference, url: options.Url = options.DEFAULT_URL, key: options.Key = None
) -> None:
    """Tell people again; what waited is told at once."""
    options.api(url, key).delete(f"{_path(reference)}/snooze")
    print(f"ended the snooze of {reference}")


@app.command("runs")
def list_runs(
    *,
    reference: Reference,
    status: Annotated[
        str | None, typer.Option("--status", help="Only those in this state, such as running or stalled.")
    ] = None,
    limit: options.NewestLimit = 50,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show the runs of a heartbeat, newest first, and how long they take."""
    api, path = options.api(url, key), f"{_path(reference)}/runs"
    body = api.rows(path, "runs", limit, status=status)
    durations = api.get(path, limit=1).get("durations")
    if as_json:
        print_json(body | given(durations=durations))
        return
    columns: list[output.Column] = [
        ("status", lambda row: row["status"]),
        ("run", lambda row: row["runId"]),
        ("started", lambda row: relative(row["startedAt"])),
        ("took", lambda row: _took(row["durationMs"]) if "durationMs" in row else None),
        ("lease ends", lambda row: relative(row.get("leaseExpiresAt"))),
        ("message", lambda row: row.get("message")),
    ]
    print_rows(body["runs"], columns, empty="no such runs")
    if durations is not None:
        median, p95, longest = (_took(durations[name]) for name in ("medianMs", "p95Ms", "longestMs"))
        print(f"{durations['count']} ended well: median {median}, 95 % within {p95}, longest {longest}")
    tell_more(body)


def _took(duration_ms: int) -> str:
    return f"{duration_ms} ms" if duration_ms < _S else short_span(duration_ms // _S)


@app.command("events")
def list_events(
    *,
    reference: Reference,
    event_type: Annotated[
        str | None, typer.Option("--type", help="Only events of this type, such as firing or checkin.")
    ] = None,
    limit: options.NewestLimit = 50,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show the history of a heartbeat, newest first."""
    body = options.api(url, key).rows(f"{_path(reference)}/events", "events", limit, type=event_type)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("when", lambda row: relative(row["createdAt"])),
        ("at", lambda row: row["createdAt"]),
        ("type", lambda row: row["type"]),
        ("details", lambda row: {name: value for name, value in row["metadata"].items() if name != "key"}),
    ]
    print_rows(body["events"], columns, empty="no such events")
    tell_more(body)


def _path(reference: str) -> str:
    return f"{_PATH}/{segment(reference)}"


def _next(body: dict[str, Json]) -> str:
    """When the next check-in is expected, in words."""
    deadline = body.get("nextDeadline")
    return f"next check-in expected {relative(deadline)} ({deadline})" if deadline else "no check-in is expected"


def _timing(every: str | None, at: str | None, once: str | None) -> dict[str, Json]:
    if sum(each is not None for each in (every, at, once)) > 1:
        raise WrongUsage("--every, --at and --once exclude each other")
    if every is not None:
        return {"mode": "recurring", "interval": values.seconds(every, "--every")}
    if at is not None:
        return {"mode": "scheduled", "schedule": at}
    if once is not None:
        return {"mode": "oneshot", "interval": values.seconds(once, "--once")}
    return {}


def _tolerance(text: str) -> dict[str, Json]:
    failures, _, window = text.partition("/")
    if not (failures.isdigit() and window.isdigit()):
        raise WrongUsage(f"--tolerance: {text!r} is not of the form 2/3")
    return {"failures": int(failures), "window": int(window)}


def _cleared(names: list[str], changes: dict[str, Json]) -> dict[str, Json]:
    for name in names:
        if name not in _CLEARABLE:
            raise WrongUsage(f"--clear: does not know {name!r}; it can be one of {', '.join(_CLEARABLE)}")
        if name in changes:
            raise WrongUsage(f"--clear: {name} is given a value as well")
    return dict.fromkeys(names)


def _expects(row: dict[str, Json]) -> str:
    if "schedule" in row:
        return f"{row['schedule']} {row.get('timezone', '')}"
    return f"{'once in' if row['mode'] == 'oneshot' else 'every'} {short_span(row.get('interval', 0))}"


def _tell(body: dict[str, Json], line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(body)
    else:
        print(line)


def _show(row: dict[str, Json], *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    times = ("nextDeadline", "firesAt", "lastCheckin", "pausedAt", "createdAt", "updatedAt")
    first = ("name", "slug", "id", "status")
    pairs: list[tuple[str, object]] = [(name, row.get(name)) for name in first]
    pairs += [("expects", _expects(row)), ("grace", short_span(row.get("grace", 0)))]
    pairs += [(name, f"{row[name]} ({relative(row[name])})") for name in times if name in row]
    told = {*first, *times, "mode", "interval", "schedule", "timezone", "grace"}
    pairs += [(name, value) for name, value in row.items() if name not in told]
    print_fields(pairs)
