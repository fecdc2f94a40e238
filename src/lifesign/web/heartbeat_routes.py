"""HTTP of one heartbeat: made, changed, looked at, and everything a person can do with it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import cast
from urllib.parse import urlsplit

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign import schedule
from lifesign.auth.rules import Caller
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.events.service import StoredEvent
from lifesign.faults import InvalidInput, invalid
from lifesign.heartbeats import board, bodies
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.checkins import CheckIn, CheckIns
from lifesign.heartbeats.definition import Definition
from lifesign.heartbeats.past import Day
from lifesign.heartbeats.rules import Heartbeat, HeartbeatLimitReached
from lifesign.http.context import base_url, context_of
from lifesign.http.validation import validate
from lifesign.incidents import policies
from lifesign.incidents.rules import Policy
from lifesign.incidents.service import tuning_of
from lifesign.runs import service as runs
from lifesign.runs.rules import Run
from lifesign.web import charts, forms, service
from lifesign.web.access import Form, changing_form, person_of, zone_of
from lifesign.web.charts import Chart, Length
from lifesign.web.overview_routes import LOOKS
from lifesign.web.pages import page, readable
from lifesign.web.routes import to
from lifesign.web.rules import Person, RoleRefused
from lifesign.web.strips import WIDTH, Strip, strip_of
from lifesign.web.telemetry_routes import took
from lifesign.web.telling import Told, actor_in, told

router = APIRouter(include_in_schema=False)

_EVENTS = 50
_DAYS = 90
_POLICIES = 1000
_LONGEST_SEQ = 18
_RUNS = 50
_NS_PER_MS = 1_000_000
# How the end of a run looks; what is not here did not say how it went.
_ENDS: Mapping[str, str] = {"finished": "alive", "failed": "firing", "stalled": "firing", "overdue": "firing"}
_SNOOZES = (("15 minutes", "900"), ("1 hour", "3600"), ("4 hours", "14400"), ("1 day", "86400"), ("1 week", "604800"))
_BLANK: Mapping[str, str] = dict.fromkeys(forms.FIELDS, "") | {
    "mode": "recurring",
    "interval": "1h",
    "grace": "5m",
    "timezone": "UTC",
}


# Making and changing ------------------------------------------------------------------------------------------------
@router.get("/heartbeats/new")
async def show_new(request: Request) -> Response:
    """The form that makes a heartbeat."""
    person = await person_of(request)
    if not person.may_change:
        raise RoleRefused(person.shown.role)
    return await _form_page(request, person, _BLANK, {})


@router.post("/heartbeats/new")
async def make(request: Request) -> Response:
    """Make a heartbeat, or only show when its next check-ins would be expected."""
    person, form = await changing_form(request)
    typed = _typed(form)
    context = context_of(request)
    try:
        definition = bodies.definition_of(validate(bodies.NewHeartbeat, forms.values_of(typed)))
        if form.get("preview"):
            return await _form_page(request, person, typed, {}, definition=definition)
        made: Heartbeat = await context.db.write(
            heartbeats.create,
            person.caller,
            definition,
            is_armed=True,
            has_slug=False,
            max_heartbeats=context.settings.max_heartbeats,
            now=context.now(),
        )
    except InvalidInput as error:
        return await _form_page(request, person, typed, forms.faults_of(error))
    except HeartbeatLimitReached as error:
        return await _form_page(request, person, typed, {"": str(error)})
    return to(f"/heartbeats/{made.id}")


@router.get("/heartbeats/{heartbeat_id}/edit")
async def show_edit(request: Request, heartbeat_id: str) -> Response:
    """The form that changes a heartbeat."""
    person = await person_of(request)
    if not person.may_change:
        raise RoleRefused(person.shown.role)
    heartbeat: Heartbeat = await context_of(request).db.read(heartbeats.get, person.shown.project_id, heartbeat_id)
    return await _form_page(request, person, forms.fields_of(_definition(heartbeat)), {}, heartbeat=heartbeat)


@router.post("/heartbeats/{heartbeat_id}/edit")
async def change(request: Request, heartbeat_id: str) -> Response:
    """Change a heartbeat, or only show when its next check-ins would be expected."""
    person, form = await changing_form(request)
    typed = _typed(form)
    context = context_of(request)
    heartbeat: Heartbeat = await context.db.read(heartbeats.get, person.shown.project_id, heartbeat_id)
    try:
        changes = bodies.changes_of(validate(bodies.HeartbeatChanges, forms.changes_of(typed)))
        if form.get("preview"):
            definition = bodies.edited(_definition(heartbeat), changes)
            return await _form_page(request, person, typed, {}, heartbeat=heartbeat, definition=definition)
        await context.db.write(
            heartbeats.edit,
            person.caller,
            heartbeat.id,
            changes,
            check=bodies.edited,
            tuning=tuning_of(context.settings),
            now=context.now(),
        )
    except InvalidInput as error:
        return await _form_page(request, person, typed, forms.faults_of(error), heartbeat=heartbeat)
    return to(f"/heartbeats/{heartbeat.id}")


def _typed(form: Form) -> dict[str, str]:
    return {name: form.get(name) for name in forms.FIELDS}


def _definition(heartbeat: Heartbeat) -> Definition:
    return Definition(**{field.name: getattr(heartbeat, field.name) for field in fields(Definition)})


async def _form_page(
    request: Request,
    person: Person,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    *,
    heartbeat: Heartbeat | None = None,
    definition: Definition | None = None,
) -> Response:
    context = context_of(request)
    known = await context.db.read(policies.list_policies, person.shown.project_id, limit=_POLICIES, after=None)
    return page(
        request,
        "heartbeat_form",
        person,
        400 if faults else 200,
        heartbeat=heartbeat,
        typed=typed,
        faults=faults,
        policies=known,
        deadlines=[] if definition is None else forms.next_deadlines(definition, context.now()),
        zone=None if definition is None else definition.timezone,
        meant=None if definition is None else forms.in_words(definition),
    )


# Looking ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Seen:
    """What the page of a heartbeat shows of it."""

    heartbeat: Heartbeat
    is_in_maintenance: bool
    policy: Policy | None
    strip: Strip
    days: list[Day]
    events: list[Told]
    has_older: bool
    runs: Chart | None
    seq: int


@router.get("/heartbeats/{heartbeat_id}")
async def show(request: Request, heartbeat_id: str) -> Response:
    """One heartbeat: how it is, how it went, how it checks in, and what can be done."""
    person = await person_of(request)
    context = context_of(request)
    before = request.query_params.get("before", "")
    is_seq = before.isascii() and before.isdigit() and len(before) <= _LONGEST_SEQ
    now = context.now()
    seen: Seen = await context.db.read(
        _seen, person.caller, heartbeat_id, before_seq=int(before) if is_seq else None, zone=zone_of(request), now=now
    )
    heartbeat = seen.heartbeat
    state = board.state_of(heartbeat, now)
    return page(
        request,
        "heartbeat",
        person,
        seq=seen.seq,
        watched=heartbeat.id,
        seen=seen,
        each=heartbeat,
        state=state,
        look=LOOKS[state][0],
        word=LOOKS[state][1],
        kind=board.kind_of(heartbeat),
        interval=forms.duration_of(heartbeat.interval_ms),
        grace=forms.duration_of(heartbeat.grace_ms),
        meant=forms.in_words(_definition(heartbeat)),
        base=base_url(request),
        mail_domain=_mail_domain(request),
        cron=_crontab_schedule(heartbeat),
        ref=heartbeat.slug or heartbeat.id,
        width=WIDTH,
        snoozes=_SNOOZES,
        is_first_page=not is_seq,
    )


def _crontab_schedule(heartbeat: Heartbeat) -> str | None:
    """When a line of a crontab runs the job; None where it runs by a schedule of systemd's, which cron cannot read."""
    if heartbeat.schedule is None:
        return "0 2 * * *"
    return None if schedule.is_on_calendar(heartbeat.schedule) else heartbeat.schedule


def _mail_domain(request: Request) -> str | None:
    """Where mails to heartbeats go; None where none are taken."""
    settings = context_of(request).settings
    if settings.ping_smtp_listen is None:
        return None
    return settings.ping_email_domain or urlsplit(base_url(request)).hostname


def _seen(conn: Connection, caller: Caller, ref: str, *, before_seq: int | None, zone: str, now: EpochMs) -> Seen:
    # First of all: what is committed after this is told to the page.
    seq = events.latest_seq(conn)
    heartbeat = heartbeats.get(conn, caller.project_id, ref)
    rows = heartbeats.history(
        conn, caller.project_id, heartbeat.id, limit=_EVENTS + 1, before_seq=before_seq, event_type=None
    )
    policy = None
    if heartbeat.policy_id is not None:
        policy = policies.find_policy(conn, caller.project_id, heartbeat.policy_id)
    return Seen(
        heartbeat,
        bool(heartbeats.covered_until(conn, [heartbeat], now)),
        policy,
        strip_of(heartbeats.recent_periods(conn, [heartbeat])[heartbeat.id]),
        heartbeats.days(conn, caller.project_id, heartbeat.id, count=_DAYS, now=now),
        told_of(conn, rows[:_EVENTS]),
        len(rows) > _EVENTS,
        _lengths(conn, heartbeat.id, zone),
        seq,
    )


def _lengths(conn: Connection, heartbeat_id: str, zone: str) -> Chart | None:
    """How long the last runs took, oldest first; None when none has ended."""
    listed = runs.list_runs(conn, heartbeat_id, limit=_RUNS, before=None, status=None)
    taken = [_length(each, each.duration_ms, zone) for each in reversed(listed) if each.duration_ms is not None]
    if not taken:
        return None
    told = runs.durations(conn, heartbeat_id)
    marks = {} if told is None else {"p50": told.median, "p95": told.p95}
    words = f"Last {len(taken)} runs" if len(taken) > 1 else "One run"
    if told is not None:
        words += f"; of {told.count} that ended well half took at most {_took(told.median)} (p50, the solid line), "
        words += f"95 % at most {_took(told.p95)} (p95, dashed), the longest {_took(told.longest)}"
    return charts.lengths(taken, marks, words)


def _length(run: Run, ms: int, zone: str) -> Length:
    told = (readable(run.started_at, zone), _took(ms), run.status)
    return Length(ms, _ENDS.get(run.status, "idle"), f"{told[0]}: {told[1]}, {told[2]}", told)


def _took(ms: int) -> str:
    return took(ms * _NS_PER_MS)


def told_of(conn: Connection, rows: list[StoredEvent]) -> list[Told]:
    """Events in words, with the names of the people who did something."""
    people = service.emails_of(conn, {actor_in(row.metadata) for row in rows})
    return [told(row.seq, row.type, row.metadata, row.created_at, people=people) for row in rows]


# Doing --------------------------------------------------------------------------------------------------------------
@router.post("/heartbeats/{heartbeat_id}/checkin")
async def check_in(request: Request, heartbeat_id: str) -> Response:
    """Check in for it."""
    person, _ = await changing_form(request)
    context = context_of(request)
    item = CheckIn(person.shown.project_id, person.user_id, heartbeat_id, True, None, context.now())  # noqa: FBT003 - a field of the tuple
    check_ins = cast("CheckIns", request.app.state.check_ins)
    await context.db.write_batched(check_ins.record, item)
    return to(f"/heartbeats/{heartbeat_id}")


@router.post("/heartbeats/{heartbeat_id}/pause")
async def pause(request: Request, heartbeat_id: str) -> Response:
    """Stop watching it."""
    person, _ = await changing_form(request)
    context = context_of(request)
    await context.db.write(heartbeats.pause, person.caller, heartbeat_id, context.now())
    return to(f"/heartbeats/{heartbeat_id}")


@router.post("/heartbeats/{heartbeat_id}/resume")
async def resume(request: Request, heartbeat_id: str) -> Response:
    """Watch it again."""
    person, _ = await changing_form(request)
    context = context_of(request)
    await context.db.write(heartbeats.resume, person.caller, heartbeat_id, context.now())
    return to(f"/heartbeats/{heartbeat_id}")


@router.post("/heartbeats/{heartbeat_id}/snooze")
async def snooze(request: Request, heartbeat_id: str) -> Response:
    """Tell nobody of it for a while."""
    person, form = await changing_form(request)
    context = context_of(request)
    values = {"seconds": forms.seconds_of(form.get("seconds"))}
    if form.get("reason"):
        values["reason"] = form.get("reason")
    body = validate(bodies.SnoozeBody, values)
    now = context.now()
    until = bodies.snooze_end_of(body, now)
    await context.db.write(heartbeats.snooze, person.caller, heartbeat_id, until=until, reason=body.reason, now=now)
    return to(f"/heartbeats/{heartbeat_id}")


@router.post("/heartbeats/{heartbeat_id}/unsnooze")
async def unsnooze(request: Request, heartbeat_id: str) -> Response:
    """Tell people of it again."""
    person, _ = await changing_form(request)
    context = context_of(request)
    await context.db.write(
        heartbeats.end_snooze, person.caller, heartbeat_id, tuning=tuning_of(context.settings), now=context.now()
    )
    return to(f"/heartbeats/{heartbeat_id}")


@router.post("/heartbeats/{heartbeat_id}/delete")
async def delete(request: Request, heartbeat_id: str) -> Response:
    """Delete it, when its name was typed."""
    person, form = await changing_form(request)
    context = context_of(request)
    heartbeat: Heartbeat = await context.db.read(heartbeats.get, person.shown.project_id, heartbeat_id)
    # Pages show several blanks as one.
    if form.get("name").split() != heartbeat.called.split():
        raise invalid("name", "is not the name of this heartbeat, so nothing was deleted")
    await context.db.write(
        heartbeats.delete, person.caller, heartbeat.id, context.now(), tuning=tuning_of(context.settings)
    )
    return to("/")
