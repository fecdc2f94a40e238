"""HTTP of bots' pages: all of them with the week to come, one with its schedules and runs, and what is done to them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.bots import looking, project_settings, rules, service, stopping
from lifesign.bots.asking import Ask, get_bot
from lifesign.bots.bodies import Fields
from lifesign.bots.budget import credits_of
from lifesign.bots.calls import ask_of, ref_of
from lifesign.bots.looking import Listed, SeenBot
from lifesign.bots.records import Bot, ProjectSettings, Run, Schedule
from lifesign.bots.rules import BotsRefusal
from lifesign.bots.schedules import Shown
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.faults import invalid
from lifesign.http.context import base_url, context_of
from lifesign.http.paging import is_id
from lifesign.web import bot_forms, week
from lifesign.web.access import Form, form_for, person_for, person_of
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person
from lifesign.web.telemetry_routes import took
from lifesign.web.week import Cell

router = APIRouter(include_in_schema=False)

SECTION: Final = "/bots"
_BOTS: Final = 50
_RUNS: Final = 50
_IN_CALENDAR: Final = 30
_REASON: Final = 500
_LONGEST_NUMBER: Final = 9
_BAR: Final = 200
_HINT_PERCENT: Final = 80
_is_run, is_schedule = is_id("run"), is_id("sch")

RUNS: Final[Mapping[str, tuple[str, str]]] = {
    "success": ("alive", "success"),
    "error": ("firing", "error"),
    "skipped": ("idle", "skipped"),
    "cancelled": ("idle", "cancelled"),
    "queued": ("idle unseen-yet", "queued"),
    "running": ("held", "running"),
    "waiting_approval": ("late", "waits for approval"),
}


class May(NamedTuple):
    """What somebody may do with bots."""

    change: bool
    run: bool
    stop: bool


def may_of(person: Person) -> May:
    """What the person may do."""
    return May(*(person.caller.allows(f"bots:{verb}") for verb in ("write", "run", "admin")))


def asking(request: Request, person: Person) -> Ask:
    """The person as the services of bots know who asks."""
    return ask_of(request, person.caller, context_of(request).now())


def shortened(prompt: str, longest: int = 100) -> str:
    """The beginning of a prompt, on one line."""
    text = " ".join(prompt[: 4 * longest].split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


# All of them --------------------------------------------------------------------------------------------------------
class Planned(NamedTuple):
    """A schedule in the calendar."""

    schedule: Schedule
    bot: str
    prompt: str
    when: str
    cells: list[Cell]


@router.get("/bots")
async def show_all(request: Request) -> Response:
    """The bots of the project, newest first, and what the next seven days bring."""
    person = await person_of(request)
    context = context_of(request)
    asked = request.query_params.get("before", "")
    before = int(asked) if asked.isascii() and asked.isdigit() and len(asked) <= _LONGEST_NUMBER else None
    seq, listed = await context.db.read(_listed, person.shown.project_id, before)
    zone = listed.settings.options.billing_timezone
    days = week.days_from(context.now(), zone)
    # A schedule that runs every minute, by cron, has many slots to walk to.
    cells = await asyncio.to_thread(_calendar, listed.upcoming[:_IN_CALENDAR], days, zone)
    return page(
        request,
        "bots",
        person,
        section=SECTION,
        listed=listed,
        state_of=bot_state,
        planned=[
            Planned(
                each,
                listed.names.get(each.bot_id, ""),
                shortened(each.prompt, 60),
                bot_forms.in_words(each.timing),
                line,
            )
            for each, line in zip(listed.upcoming, cells, strict=False)
        ],
        has_more_planned=len(listed.upcoming) > _IN_CALENDAR,
        days=days,
        zone=zone,
        bar=week,
        is_halted=context.settings.bots_stopped,
        is_filtered=before is not None,
        may=may_of(person),
        base=base_url(request),
        seq=seq,
    )


def _listed(conn: Connection, project_id: str, before: int | None) -> tuple[int, Listed]:
    seq = events.latest_seq(conn)
    return seq, looking.bots(conn, project_id, limit=_BOTS, before=before, schedules=_IN_CALENDAR + 1)


def _calendar(schedules: Sequence[Schedule], days: Sequence[week.Day], zone: str) -> list[list[Cell]]:
    return [week.line_of(each, days, zone) for each in schedules]


def bot_state(bot: Bot, settings: ProjectSettings) -> tuple[str, str]:
    """How a bot looks, and what that is called."""
    if not bot.is_online:
        return "idle", "offline"
    if not bot.is_scheduling:
        return "idle", "switched off"
    return ("late", "stopped") if settings.stopped_at is not None else ("alive", "on")


@router.post("/bots/stop")
async def stop(request: Request) -> Response:
    """Let no run of the project begin, and cancel those that go on if that is wanted."""
    person, form = await form_for(request, "bots:admin")
    await context_of(request).db.write(
        stopping.stop_project,
        asking(request, person),
        form.get("reason")[:_REASON] or None,
        cancels=bool(form.get("cancel_running")),
    )
    return to("/bots")


@router.post("/bots/resume")
async def resume(request: Request) -> Response:
    """Let runs begin again."""
    person, _ = await form_for(request, "bots:admin")
    await context_of(request).db.write(stopping.resume_project, asking(request, person))
    return to("/bots")


# Making and changing ------------------------------------------------------------------------------------------------
@router.get("/bots/new")
async def show_new(request: Request) -> Response:
    """The form that makes a bot."""
    person = await person_for(request, "bots:write")
    return await _form_page(request, person, bot_forms.NEW_BOT, {})


@router.post("/bots/new")
async def make(request: Request) -> Response:
    """Make a bot, whose runner's secret this answer shows, and no other."""
    person, form = await form_for(request, "bots:write")
    typed = typed_of(form, bot_forms.BOT_FIELDS)
    ask = asking(request, person)
    try:
        made: Bot = await context_of(request).db.write(service.create_bot, ask, Fields(bot_forms.bot_body(typed)))
    except BotsRefusal as error:
        return await _form_page(request, person, typed, bot_forms.faults_of(error, bot_forms.BOT_FIELDS))
    return await _kept(request, person, ask, None, made)


@router.get("/bots/{bot_id}/edit")
async def show_edit(request: Request, bot_id: str) -> Response:
    """The form that changes a bot."""
    person = await person_for(request, "bots:write")
    bot: Bot = await context_of(request).db.read(get_bot, person.shown.project_id, ref_of(bot_id))
    return await _form_page(request, person, bot_forms.bot_typed(bot), {}, bot=bot)


@router.post("/bots/{bot_id}/edit")
async def change(request: Request, bot_id: str) -> Response:
    """Change a bot; a secret that its runner gets anew is shown by this answer, and no other."""
    person, form = await form_for(request, "bots:write")
    typed = typed_of(form, bot_forms.BOT_FIELDS)
    ask, db = asking(request, person), context_of(request).db
    bot: Bot = await db.read(get_bot, ask.project_id, ref_of(bot_id))
    try:
        before, after = await db.write(service.update_bot, ask, bot.id, Fields(bot_forms.bot_changes(typed)))
    except BotsRefusal as error:
        return await _form_page(request, person, typed, bot_forms.faults_of(error, bot_forms.BOT_FIELDS), bot=bot)
    return await _kept(request, person, ask, before, after)


def typed_of(form: Form, fields: Sequence[str]) -> dict[str, str]:
    """The fields of a form."""
    return {name: form.get(name) for name in fields}


def ticked(form: Form, prefix: str) -> str:
    """What was ticked of a list whose boxes are called by this and the id of each."""
    return " ".join(
        name.removeprefix(prefix) for name, value in form.fields.items() if name.startswith(prefix) and value
    )


async def _kept(request: Request, person: Person, ask: Ask, before: Bot | None, after: Bot) -> Response:
    sealed = after.options.runner.get("secret")
    if sealed is None or (before is not None and before.options.runner.get("secret") == sealed):
        return to(f"/bots/{after.id}")
    return await _page_of(request, person, after.id, secret=service.runner_secret(ask.box, after))


async def _form_page(
    request: Request, person: Person, typed: Mapping[str, str], faults: Mapping[str, str], *, bot: Bot | None = None
) -> Response:
    context = context_of(request)
    settings: ProjectSettings = await context.db.read(project_settings.settings_of, person.shown.project_id)
    own = [each["name"] for each in settings.options.providers]
    offered = request.app.state.bot_offers(person.shown.project_id).providers
    known = ["default", *sorted({*own, *offered, *({typed["provider"]} if typed["provider"] else ())} - {"default"})]
    return page(
        request,
        "bot_form",
        person,
        400 if faults else 200,
        section=SECTION,
        bot=bot,
        typed=typed,
        faults=faults,
        providers=[(each, each) for each in known],
        default_model=settings.options.default_model,
    )


# One of them --------------------------------------------------------------------------------------------------------
class Meter(NamedTuple):
    """How much of a budget is used up. width: of the bar; held: what runs have reserved besides."""

    look: str
    width: int
    held: int
    words: str


class Line(NamedTuple):
    """A schedule on the page of its bot."""

    shown: Shown
    prompt: str
    when: str
    look: str
    word: str
    meter: Meter
    why: str


class Done(NamedTuple):
    """A run in a list."""

    run: Run
    look: str
    word: str
    why: str
    prompt: str
    took: str
    tokens: str
    credits: float | int


@router.get("/bots/{bot_id}")
async def show(request: Request, bot_id: str) -> Response:
    """One bot: what it is, when it runs, and what became of its runs."""
    person = await person_of(request)
    return await _page_of(request, person, bot_id)


async def _page_of(request: Request, person: Person, bot_id: str, *, secret: str = "") -> Response:
    context = context_of(request)
    query = request.query_params
    status = next((each for each in rules.STATUSES if each == query.get("status")), None)
    schedule_id = found if is_schedule(found := query.get("schedule", "")) else None
    before = found if _is_run(found := query.get("before", "")) else None
    seq, seen = await context.db.read(
        _seen,
        person.shown.project_id,
        ref_of(bot_id),
        context.now(),
        status=status,
        schedule_id=schedule_id,
        before=before,
    )
    # The answer that shows a secret has the address of the form, which is not to be asked for again.
    live: dict[str, Any] = {} if secret else {"seq": seq, "watched": seen.bot.id}  # Any: values of a template
    look, word = bot_state(seen.bot, seen.settings)
    return page(
        request,
        "bot",
        person,
        section=SECTION,
        seen=seen,
        bot=seen.bot,
        look=look,
        word=word,
        per_1k=credits_of(seen.bot.options.units_per_1k),
        lines=[_line(each, seen.bot) for each in seen.schedules],
        bar=_BAR,
        going_on=[done(each) for each in seen.open_runs],
        runs=[done(each) for each in seen.runs],
        older=seen.runs[-1].id if seen.has_older else "",
        statuses=rules.STATUSES,
        status_wanted=status or "",
        schedule_id=schedule_id or "",
        is_filtered=before is not None or status is not None or schedule_id is not None,
        secret=secret,
        may=may_of(person),
        **live,
    )


def _seen(
    conn: Connection,
    project_id: str,
    ref: str | int,
    now: EpochMs,
    *,
    status: str | None,
    schedule_id: str | None,
    before: str | None,
) -> tuple[int, SeenBot]:
    seq = events.latest_seq(conn)
    found = looking.bot(
        conn, project_id, ref, status=status, schedule_id=schedule_id, before=before, limit=_RUNS, now=now
    )
    return seq, found


def _line(shown: Shown, bot: Bot) -> Line:
    schedule = shown.schedule
    why = ""
    if schedule.paused_reason is not None and not schedule.is_enabled:
        why = _PAUSES.get(schedule.paused_reason, schedule.paused_reason)
    look, word = schedule_state(shown, bot)
    return Line(shown, shortened(schedule.prompt), bot_forms.in_words(schedule.timing), look, word, meter(shown), why)


_PAUSES: Final = {
    "user": "switched off by a person",
    "consecutive_errors": "too many errors in a row",
    "runner_gone": "its runner is gone",
    "schedule_error": "it has no next slot",
}


def schedule_state(shown: Shown, bot: Bot) -> tuple[str, str]:
    """How a schedule looks, and what that is called."""
    schedule = shown.schedule
    if shown.running_run is not None:
        return "held", "running"
    if not schedule.is_enabled:
        return ("late", "paused") if schedule.paused_by == "system" else ("idle", "disabled")
    return ("alive", "enabled") if bot.is_scheduling else ("idle", "suspended")


def meter(shown: Shown) -> Meter:
    """The budget of the period, as a bar and in words."""
    budget, spent, reserved = shown.schedule.budget, shown.spent, shown.reserved
    held = f", {credits_of(reserved)} reserved" if reserved else ""
    if budget is None:
        return Meter("", 0, 0, f"{credits_of(spent)} credits spent{held}, no limit")
    percent = 100 if spent >= budget else spent * 100 // budget
    look = "firing" if spent >= budget else "late" if percent >= _HINT_PERCENT else "alive"
    width = percent * _BAR // 100
    taken = 0 if not budget else min(_BAR - width, reserved * _BAR // budget)
    return Meter(look, width, taken, f"{credits_of(spent)} of {credits_of(budget)} credits spent{held}")


def done(run: Run) -> Done:
    """A run as lists show it."""
    look, word = RUNS[run.status]
    tokens = run.input_tokens + run.output_tokens
    return Done(
        run,
        look,
        word,
        run.reason or "",
        shortened(run.prompt, 60),
        "" if run.duration_ms is None else took(run.duration_ms * 1_000_000),
        f"{tokens:,}" if tokens else "",
        credits_of(run.credits),
    )


# Doing --------------------------------------------------------------------------------------------------------------
@router.post("/bots/{bot_id}/switch")
async def switch(request: Request, bot_id: str) -> Response:
    """Let a bot's schedules run, or suspend them all."""
    person, form = await form_for(request, "bots:write")
    _, bot = await context_of(request).db.write(
        service.update_bot, asking(request, person), ref_of(bot_id), Fields({"heartbeat": bool(form.get("on"))})
    )
    return to(f"/bots/{bot.id}")


@router.post("/bots/{bot_id}/reset")
async def reset(request: Request, bot_id: str) -> Response:
    """Forget what was said in earlier runs, when the bot's name was typed."""
    person, form = await form_for(request, "bots:write")
    bot = await named(request, person, form, bot_id, "nothing was forgotten")
    await context_of(request).db.write(service.reset_bot, asking(request, person), bot.id)
    return to(f"/bots/{bot.id}")


@router.post("/bots/{bot_id}/delete")
async def delete(request: Request, bot_id: str) -> Response:
    """Delete it with its schedules and all that is kept of its runs, when its name was typed."""
    person, form = await form_for(request, "bots:write")
    bot = await named(request, person, form, bot_id, "nothing was deleted")
    await context_of(request).db.write(service.delete_bot, asking(request, person), bot.id)
    return to("/bots")


async def named(request: Request, person: Person, form: Form, bot_id: str, otherwise: str) -> Bot:
    """The bot, whose name was typed. Raises InvalidInput."""
    bot: Bot = await context_of(request).db.read(get_bot, person.shown.project_id, ref_of(bot_id))
    if form.get("name") != bot.name.strip():
        raise invalid("name", f"is not the name of this bot, so {otherwise}")
    return bot
