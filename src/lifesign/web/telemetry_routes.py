"""HTTP of telemetry's pages: what arrived, sessions, traces, and one span with all that it says."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import orjson
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs
from lifesign.http.context import base_url, context_of
from lifesign.telemetry import asked
from lifesign.telemetry.sessions import Outcome, Summary, Totals
from lifesign.telemetry.store import Activity, Arrival, Filter, SpanStore, Start, Stored
from lifesign.telemetry.wire import Json, milliseconds, time_of, usd, wire
from lifesign.web import charts, waterfall
from lifesign.web.access import person_of
from lifesign.web.charts import Chart
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person

router = APIRouter(include_in_schema=False)

MINUTE_MS: Final = 60_000
_SESSIONS: Final = 50
_SPANS: Final = 500
_SEARCHED: Final = 2000
_PER_LOOK: Final = 500
_FOUND: Final = 100
_LONGEST: Final = 200
_LONGEST_VALUE: Final = 4000
_RECORD_ID: Final = re.compile(r"rec_[0-9a-f]{48}")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_TRACE_DIGITS: Final = 32
_STEPS: Final = frozenset({".", ".."})


class Span(NamedTuple):
    """A window that can be chosen: how long it is, what it is called, and into how many bars it is parted."""

    minutes: int
    name: str
    bars: int


WINDOWS: Final = (
    Span(60, "Last hour", 12),
    Span(1440, "Last day", 24),
    Span(10_080, "Last week", 28),
    Span(43_200, "Last 30 days", 30),
)
OUTCOMES: Final[Mapping[Outcome, str]] = {"ok": "alive", "recovered": "late", "failed": "firing", "unknown": "idle"}
_LOOKS: Final = {"fine": "idle", "failed": "firing"}


def span_of(request: Request, default: int = 1) -> Span:
    """The window that was chosen."""
    wanted = request.query_params.get("minutes")
    return next((each for each in WINDOWS if str(each.minutes) == wanted), WINDOWS[default])


def window_of(request: Request, span: Span) -> tuple[EpochMs, EpochMs]:
    """Its beginning, and its end: what arrived in this very millisecond is in it."""
    now = context_of(request).now()
    return EpochMs(now - span.minutes * MINUTE_MS), EpochMs(now + 1)


def typed(request: Request, name: str) -> str:
    """What was typed into a field that narrows a page down."""
    return asked.storable(request.query_params.get(name, "").strip()[:_LONGEST])


# Everything ---------------------------------------------------------------------------------------------------------
@router.get("/telemetry")
async def show_all(request: Request) -> Response:
    """What arrived in a window: how much of it failed, and its sessions; or the spans that say a certain thing."""
    person = await person_of(request)
    span, environment, search = span_of(request), typed(request, "environment"), typed(request, "q")
    since, until = window_of(request, span)
    store, project_id = asked.store_of(request), person.shown.project_id
    after = asked.place_of(request, "sessions", project_id, lambda at, key: Activity(EpochMs(at), key))
    stats, lag, chart, sessions = await asyncio.gather(
        store.stats(project_id, since, until),
        store.lag(project_id),
        pace_chart(store, project_id, since, span),
        store.sessions(project_id, since, until, environment=environment or None, limit=_SESSIONS + 1, after=after),
    )
    found = await _search(store, project_id, (since, until), environment, search) if search else None
    kept = {"minutes": str(span.minutes)} | ({"environment": environment} if environment else {})
    shown = sessions[:_SESSIONS]
    older = ""
    if len(sessions) > _SESSIONS:
        place = (shown[-1].last_received_at, shown[-1].session_id)
        older = urlencode(kept | {"cursor": asked.cursor_of("sessions", project_id, place)})
    return page(
        request,
        "telemetry",
        person,
        section="/telemetry",
        windows=WINDOWS,
        span=span,
        environment=environment,
        search=search,
        stats=stats,
        lag=lag,
        chart=chart,
        used=used(stats.totals),
        sessions=[line_of(each) for each in shown],
        older=older,
        found=found,
        outcomes=OUTCOMES,
        base=base_url(request),
        is_filtered=bool(environment) or after is not None,
    )


async def pace_chart(store: SpanStore, project_id: str, since: EpochMs, span: Span) -> Chart:
    """How many records arrived over time, and how many of them failed."""
    step_ms = span.minutes * MINUTE_MS // span.bars
    # One millisecond later, so that the newest is in the last bar.
    pace = await store.pace(project_id, EpochMs(since + 1), step_ms, span.bars)
    columns = [
        (
            _named(EpochMs(since + number * step_ms), span),
            {"fine": each.records - each.failures, "failed": each.failures},
        )
        for number, each in enumerate(pace)
    ]
    return charts.bars(columns, _LOOKS, f"Records that arrived, {span.name.lower()} (UTC)")


def _named(at: EpochMs, span: Span) -> str:
    text = time_of(at * 1_000_000)
    return text[11:16] if span.minutes <= WINDOWS[1].minutes else f"{text[5:10]} {text[11:16]}"


class Used(NamedTuple):
    """Tokens and money as they are read; empty where nobody said."""

    tokens: str
    cost: str


def used(totals: Totals) -> Used:
    """What was used, in words."""
    cost = usd(totals.cost_nano)
    return Used("" if totals.total is None else f"{totals.total:,}", "" if cost is None else f"${cost:,.4f}")


class Ways(NamedTuple):
    """Where the pages of sessions lead: all of them, one of them, one trace."""

    all: str
    sessions: str
    traces: str

    def session(self, session_id: str) -> str:
        """Where a session's page is, whatever its sender called it."""
        # Browsers take a step up the path for these, percent-encoded too. A blank at the end is no part of a name.
        end = "%20" if session_id in _STEPS else ""
        return f"{self.sessions}/{quote(session_id, safe='')}{end}"


OF_PEOPLE: Final = Ways("/telemetry", "/sessions", "/traces")


class Line(NamedTuple):
    """A session in the list."""

    summary: Summary
    path: str
    lasted: str
    used: Used
    last_at: EpochMs


def line_of(summary: Summary, ways: Ways = OF_PEOPLE) -> Line:
    """A session as the list has it."""
    lasted = took(summary.ended_ns - summary.started_ns)
    return Line(summary, ways.session(summary.session_id), lasted, used(summary.totals), summary.last_received_at)


def took(duration_ns: int) -> str:
    """A duration, as short as it can be said."""
    ms = milliseconds(max(0, duration_ns))
    if ms < 999.5:  # noqa: PLR2004 - which is a second, rounded
        return f"{ms:.3g} ms"
    seconds = ms / 1000
    if seconds < 60:  # noqa: PLR2004 - of a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


# Searching ----------------------------------------------------------------------------------------------------------
class Found(NamedTuple):
    """The spans that say what was searched for, and among how many of the newest."""

    spans: list[Stored]
    searched: int
    is_all: bool


async def _search(
    store: SpanStore, project_id: str, window: tuple[EpochMs, EpochMs], environment: str, search: str
) -> Found:
    found: list[Stored] = []
    searched, after = 0, None
    while searched < _SEARCHED and len(found) < _FOUND:
        only = Filter(environment=environment or None)
        records = await store.window(project_id, *window, only=only, limit=_PER_LOOK, after=after)
        found += await asyncio.to_thread(_matching, records, search)
        searched += len(records)
        if len(records) < _PER_LOOK:
            return Found(found[:_FOUND], searched, is_all=len(found) <= _FOUND)
        after = Arrival(records[-1].record.received_at, records[-1].record.record_id)
    return Found(found[:_FOUND], searched, is_all=False)


def _matching(records: Sequence[Stored], search: str) -> list[Stored]:
    return [each for each in records if says(wire(each.record, project_id="", session_id=each.session_id), search)]


def says(record: Json, search: str) -> bool:
    """Whether a record says something: `key=value` in one attribute, anything else in any text of it.

    Capitals do not matter. A value is compared as text, and need not be whole.
    """
    key, equals, value = search.partition("=")
    attributes = {**record["resource"]["attributes"], **record["attributes"]}
    if equals and key.strip() in attributes:
        return value.strip().casefold() in _text(attributes[key.strip()]).casefold()
    wanted = search.casefold()
    fields = ("name", "operation", "tool", "model", "agent", "service", "error_type", "message", "session_id")
    texts = [record[name] or "" for name in fields] + [f"{name}={_text(each)}" for name, each in attributes.items()]
    return any(wanted in text.casefold() for text in texts)


def _text(value: Any) -> str:  # Any: an attribute's value is whatever the sender made it
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


# Sessions and traces ------------------------------------------------------------------------------------------------
@router.get("/sessions/{id:any_text}")
async def show_session(request: Request, id: str) -> Response:  # noqa: A002 - as the API calls it
    """A session as a waterfall of spans."""
    person = await person_of(request)
    return await session_page(request, person, person.shown.project_id, id, OF_PEOPLE)


async def session_page(request: Request, person: Person | None, project_id: str, called: str, ways: Ways) -> Response:
    """A session of a project as a waterfall, to somebody who may see it."""
    store, ref = asked.store_of(request), asked.session_of(called)
    after = asked.place_of(request, f"session {ref}", project_id, Start)
    window = window_of(request, WINDOWS[-1])
    found = await store.session(project_id, ref, *window, limit=_SPANS + 1, after=after)
    if found is None:
        raise HTTPException(404)
    records = found.records[:_SPANS]
    later = ""
    if len(found.records) > _SPANS:
        last = records[-1].record
        later = asked.cursor_of(f"session {ref}", project_id, (last.start_ns, last.record_id))
    title = "Trace" if found.scope == "trace" else "Session"
    return await _waterfall(
        request,
        person,
        project_id,
        records,
        ways=ways,
        title=title,
        summary=found.summary,
        called=ref if found.scope == "trace" else found.summary.session_id,
        at=ways.session(ref),
        later=later,
        is_part=bool(later) or after is not None,
    )


@router.get("/traces/{trace_id}")
async def show_trace(request: Request, trace_id: str) -> Response:
    """One trace as a waterfall, whatever sessions its spans are in."""
    person = await person_of(request)
    return await trace_page(request, person, person.shown.project_id, trace_id, OF_PEOPLE)


async def trace_page(request: Request, person: Person | None, project_id: str, trace_id: str, ways: Ways) -> Response:
    """A trace of a project as a waterfall, to somebody who may see it."""
    if not _TRACE_ID.fullmatch(trace_id):
        raise HTTPException(404)
    records = await asked.store_of(request).trace(project_id, trace_id, limit=_SPANS + 1)
    if not records:
        raise HTTPException(404)
    return await _waterfall(
        request,
        person,
        project_id,
        records[:_SPANS],
        ways=ways,
        title="Trace",
        summary=None,
        called=trace_id,
        at=f"{ways.traces}/{trace_id}",
        later="",
        is_part=len(records) > _SPANS,
    )


@router.get("/records/{record_id}")
async def show_record(request: Request, record_id: str) -> Response:
    """The span that some evidence names, within its trace."""
    await person_of(request)
    if not _RECORD_ID.fullmatch(record_id):
        raise HTTPException(404)
    trace_id = record_id.removeprefix("rec_")[:_TRACE_DIGITS]
    return to(f"/traces/{trace_id}?span={record_id}#span")


# Any: what the template asks for.
async def _waterfall(
    request: Request, person: Person | None, project_id: str, records: Sequence[Stored], **values: Any
) -> Response:
    chosen = await _chosen(request, project_id, records)
    return page(
        request,
        "session",
        person,
        section="/telemetry",
        rows=[
            Drawn(row, look_of(row.stored), took(row.stored.record.duration_ns)) for row in waterfall.rows_of(records)
        ],
        width=waterfall.WIDTH,
        chosen=chosen,
        outcomes=OUTCOMES,
        sessions=sorted({each.session_id for each in records}),
        used=None if values["summary"] is None else used(values["summary"].totals),
        lasted=None if values["summary"] is None else line_of(values["summary"]).lasted,
        **values,
    )


class Drawn(NamedTuple):
    """A span of a waterfall as it is seen."""

    row: waterfall.Row
    look: str
    took: str


def look_of(stored: Stored) -> str:
    """How a span is coloured."""
    record = stored.record
    if record.is_failing:
        return "firing"
    return "late" if record.severity == "warning" else "alive" if record.status == "ok" else "idle"


class Said(NamedTuple):
    """A span with all that it says. Pairs: names and values as text."""

    stored: Stored
    look: str
    facts: list[tuple[str, str]]
    attributes: list[tuple[str, str]]
    resource: list[tuple[str, str]]
    events: list[tuple[str, str, list[tuple[str, str]]]]
    links: list[tuple[str, str]]


async def _chosen(request: Request, project_id: str, records: Sequence[Stored]) -> Said | None:
    wanted = request.query_params.get("span", "")
    if not _RECORD_ID.fullmatch(wanted):
        return None
    found = next((each for each in records if each.record.record_id == wanted), None)
    if found is None:
        others = await asked.store_of(request).records(project_id, [wanted])
        found = others[0] if others else None
    return None if found is None else _said(found)


_FACTS: Final = (
    *("kind", "operation", "status", "signal_type", "error_type", "message", "agent", "service", "environment"),
    *("version", "tool", "provider", "model", "finish_reason", "attempt", "started_at", "ended_at", "received_at"),
    *("convention", "session_id", "trace_id", "span_id", "parent_span_id", "record_id"),
)


def _said(stored: Stored) -> Said:
    record = wire(stored.record, project_id="", session_id=stored.session_id)
    facts = [(name.replace("_", " "), _text(record[name])) for name in _FACTS if record[name] not in {None, ""}]
    facts += [(f"{name} tokens", f"{each:,}") for name, each in record["tokens"].items() if each is not None]
    if record["cost_usd"] is not None:
        facts.append(("cost", f"${record['cost_usd']:.6f}"))
    return Said(
        stored,
        look_of(stored),
        facts,
        _pairs(record["attributes"]),
        _pairs(record["resource"]["attributes"]),
        [(each["name"], each["time"], _pairs(each["attributes"])) for each in record["events"]],
        [(each["trace_id"], each["span_id"]) for each in record["links"]],
    )


def _pairs(attributes: Mapping[str, Any]) -> list[tuple[str, str]]:  # Any: see _text
    return [(name, _shortened(_text(each))) for name, each in sorted(attributes.items())]


def _shortened(text: str) -> str:
    if len(text) <= _LONGEST_VALUE:
        return text
    return f"{text[:_LONGEST_VALUE]}… ({len(text) - _LONGEST_VALUE:,} more characters)"
