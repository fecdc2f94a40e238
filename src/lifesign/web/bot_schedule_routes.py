"""HTTP of the pages of a bot's schedules: made and changed with their next slots shown, switched, run by hand."""

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.bots import bodies, claiming, project_settings, rules, schedules, timing
from lifesign.bots.asking import Ask, get_bot, get_schedule
from lifesign.bots.bodies import Fields
from lifesign.bots.calls import ref_of
from lifesign.bots.records import Bot, Schedule
from lifesign.bots.rules import BotsRefusal
from lifesign.bots.schedules import Shown
from lifesign.bots.timing import Timing
from lifesign.channels import service as channels
from lifesign.clock import EpochMs
from lifesign.http.context import context_of
from lifesign.incidents import policies
from lifesign.web import bot_forms
from lifesign.web.access import Form, form_for, person_for
from lifesign.web.bot_routes import SECTION, asking, is_schedule, named, shortened, ticked, typed_of
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person

router = APIRouter(include_in_schema=False)

_PREVIEWED: Final = 10
_POLICIES: Final = 1000
_CHANNELS: Final = 1000


# Making and changing ------------------------------------------------------------------------------------------------
@router.get("/bots/{bot_id}/schedules/new")
async def show_new(request: Request, bot_id: str) -> Response:
    """The form that makes a schedule."""
    person = await person_for(request, "bots:write")
    bot = await _bot(request, person, bot_id)
    return await _form_page(request, person, bot, bot_forms.NEW_SCHEDULE, {})


@router.post("/bots/{bot_id}/schedules/new")
async def make(request: Request, bot_id: str) -> Response:
    """Make a schedule, or only show when it would run."""
    person, form = await form_for(request, "bots:write")
    typed = _typed(form)
    ask = asking(request, person)
    bot = await _bot(request, person, bot_id)
    try:
        if form.get("preview"):
            return await _form_page(request, person, bot, typed, {}, wanted=await _wanted(request, ask, typed))
        fields = Fields(bot_forms.schedule_body(typed, None))
        await context_of(request).db.write(schedules.add_schedule, ask, bot.id, fields)
    except BotsRefusal as error:
        faults = bot_forms.faults_of(error, bot_forms.SCHEDULE_FIELDS)
        return await _form_page(request, person, bot, typed, faults)
    return to(f"/bots/{bot.id}")


@router.get("/bots/{bot_id}/schedules/{schedule_id}/edit")
async def show_edit(request: Request, bot_id: str, schedule_id: str) -> Response:
    """The form that changes a schedule."""
    person = await person_for(request, "bots:write")
    bot, schedule = await _schedule(request, person, bot_id, schedule_id)
    return await _form_page(request, person, bot, bot_forms.schedule_typed(schedule), {}, schedule=schedule)


@router.post("/bots/{bot_id}/schedules/{schedule_id}/edit")
async def change(request: Request, bot_id: str, schedule_id: str) -> Response:
    """Change a schedule, or only show when it would run."""
    person, form = await form_for(request, "bots:write")
    typed = _typed(form)
    ask = asking(request, person)
    bot, schedule = await _schedule(request, person, bot_id, schedule_id)
    try:
        if form.get("preview"):
            wanted = await _wanted(request, ask, typed)
            return await _form_page(request, person, bot, typed, {}, schedule=schedule, wanted=wanted)
        fields = Fields(bot_forms.schedule_body(typed, schedule))
        await context_of(request).db.write(schedules.configure, ask, bot.id, fields)
    except BotsRefusal as error:
        faults = bot_forms.faults_of(error, bot_forms.SCHEDULE_FIELDS)
        return await _form_page(request, person, bot, typed, faults, schedule=schedule)
    return to(f"/bots/{bot.id}")


def _typed(form: Form) -> dict[str, str]:
    return typed_of(form, bot_forms.SCHEDULE_FIELDS) | {"channels": ticked(form, "channel-")}


async def _bot(request: Request, person: Person, bot_id: str) -> Bot:
    found: Bot = await context_of(request).db.read(get_bot, person.shown.project_id, ref_of(bot_id))
    return found


async def _schedule(request: Request, person: Person, bot_id: str, schedule_id: str) -> tuple[Bot, Schedule]:
    if not is_schedule(schedule_id):
        raise rules.ScheduleNotFound
    found: tuple[Bot, Schedule] = await context_of(request).db.read(
        get_schedule, person.shown.project_id, ref_of(bot_id), schedule_id
    )
    return found


async def _wanted(request: Request, ask: Ask, typed: Mapping[str, str]) -> Timing:
    """The timing that was typed, as far as the plan allows it. Raises InvalidField."""
    settings = await context_of(request).db.read(project_settings.settings_of, ask.project_id)
    wanted = bodies.timing_of(Fields(bot_forms.timing_body(typed)), None, ask.now)
    project_settings.require_floor(rules.PLANS[settings.plan], wanted, ask.now)
    return wanted


async def _form_page(
    request: Request,
    person: Person,
    bot: Bot,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    *,
    schedule: Schedule | None = None,
    wanted: Timing | None = None,
) -> Response:
    context = context_of(request)
    known = await context.db.read(policies.list_policies, person.shown.project_id, limit=_POLICIES, after=None)
    told = await context.db.read(channels.list_channels, person.shown.project_id, limit=_CHANNELS, after=None)
    return page(
        request,
        "bot_schedule_form",
        person,
        400 if faults else 200,
        section=SECTION,
        bot=bot,
        schedule=schedule,
        short="" if schedule is None else shortened(schedule.prompt, 60),
        typed=typed,
        faults=faults,
        policies=known,
        channels=told,
        slots=_slots(wanted, schedule, context.now()),
        zone=None if wanted is None else wanted.timezone,
    )


def _slots(wanted: Timing | None, schedule: Schedule | None, now: EpochMs) -> list[EpochMs]:
    """The next slots of a timing; those that a schedule has already, when its timing stays."""
    if wanted is None:
        return []
    if schedule is not None and schedule.timing == wanted and schedule.next_slot is not None:
        return [schedule.next_slot, *timing.slots_after(wanted, schedule.next_slot, _PREVIEWED - 1)]
    return timing.slots_after(wanted, now, _PREVIEWED)


# Doing --------------------------------------------------------------------------------------------------------------
@router.post("/bots/{bot_id}/schedules/{schedule_id}/trigger")
async def trigger(request: Request, bot_id: str, schedule_id: str) -> Response:
    """Run it now; the page of the run tells what becomes of it."""
    person, _ = await form_for(request, "bots:run")
    bot, schedule = await _schedule(request, person, bot_id, schedule_id)
    context = context_of(request)
    run = await context.db.write(
        claiming.trigger, asking(request, person), bot.id, schedule.id, is_halted=context.settings.bots_stopped
    )
    return to(f"/runs/{run.id}")


@router.post("/bots/{bot_id}/schedules/{schedule_id}/enable")
async def enable(request: Request, bot_id: str, schedule_id: str) -> Response:
    """Let it run from now on."""
    return await _switched(request, bot_id, schedule_id, is_enabled=True)


@router.post("/bots/{bot_id}/schedules/{schedule_id}/disable")
async def disable(request: Request, bot_id: str, schedule_id: str) -> Response:
    """Let it rest; a run that is going on finishes."""
    return await _switched(request, bot_id, schedule_id, is_enabled=False)


async def _switched(request: Request, bot_id: str, schedule_id: str, *, is_enabled: bool) -> Response:
    person, _ = await form_for(request, "bots:write")
    bot, schedule = await _schedule(request, person, bot_id, schedule_id)
    shown: Shown = await context_of(request).db.write(
        schedules.set_enabled, asking(request, person), bot.id, schedule.id, is_enabled=is_enabled
    )
    return to(f"/bots/{shown.bot.id}")


@router.post("/bots/{bot_id}/schedules/{schedule_id}/delete")
async def delete(request: Request, bot_id: str, schedule_id: str) -> Response:
    """Delete it, when the name of its bot was typed; its runs are cancelled, what became of them stays."""
    person, form = await form_for(request, "bots:write")
    _, schedule = await _schedule(request, person, bot_id, schedule_id)
    bot = await named(request, person, form, bot_id, "nothing was deleted")
    await context_of(request).db.write(schedules.delete_schedule, asking(request, person), bot.id, schedule.id)
    return to(f"/bots/{bot.id}")
