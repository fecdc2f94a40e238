"""HTTP of the bots' part of a project's settings: plan, budgets and limits, providers, servers of tools, prices."""

from collections.abc import Mapping

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.bots import project_settings
from lifesign.bots.bodies import Fields
from lifesign.bots.records import ProjectSettings
from lifesign.bots.rules import BotsRefusal, EntryNotFound, Trifecta
from lifesign.faults import invalid
from lifesign.http.context import context_of
from lifesign.web import bot_forms, bot_setting_forms
from lifesign.web.access import form_for, person_for
from lifesign.web.bot_routes import asking, ticked, typed_of
from lifesign.web.bot_setting_forms import KINDS, Kind
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person
from lifesign.web.settings_routes import settings_page

router = APIRouter(include_in_schema=False)

_SECRETS = ("api_key", "headers")


@router.post("/settings/bots")
async def change(request: Request) -> Response:
    """Change what is set for the bots of the project."""
    person, form = await form_for(request, "bots:admin")
    typed = typed_of(form, bot_forms.SETTING_FIELDS) | {"notify_channels": ticked(form, "channel-")}
    try:
        fields = Fields(bot_forms.settings_body(typed))
        await context_of(request).db.write(project_settings.change_settings, asking(request, person), fields)
    except BotsRefusal as error:
        faults = bot_forms.faults_of(error, bot_forms.SETTING_FIELDS)
        return await settings_page(request, person, faults, typed)
    return to("/settings#bots")


# Lists of settings --------------------------------------------------------------------------------------------------
def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise EntryNotFound
    return KINDS[name]


async def _settings(request: Request, person: Person) -> ProjectSettings:
    return await context_of(request).db.read(project_settings.settings_of, person.shown.project_id)


@router.get("/settings/bots/{kind}/new")
async def show_new(request: Request, kind: str) -> Response:
    """The form that adds a provider, a server of tools or a price."""
    found = _kind(kind)
    person = await person_for(request, found.scope)
    return _form_page(request, person, kind, found.new, {})


@router.post("/settings/bots/{kind}/new")
async def add(request: Request, kind: str) -> Response:
    """Add a provider, a server of tools or a price."""
    return await _put(request, kind, None)


@router.get("/settings/bots/{kind}/edit")
async def show_edit(request: Request, kind: str) -> Response:
    """The form that changes one."""
    found = _kind(kind)
    person = await person_for(request, found.scope)
    place = request.query_params.get("of", "")
    stored = project_settings.entry_of(await _settings(request, person), found.setting, place)
    return _form_page(request, person, kind, found.typed(stored), {}, place=place)


@router.post("/settings/bots/{kind}/edit")
async def change_one(request: Request, kind: str) -> Response:
    """Change one."""
    return await _put(request, kind, request.query_params.get("of", ""))


async def _put(request: Request, kind: str, place: str | None) -> Response:
    """Keep what was typed. place: the entry that it is about; None: a new one."""
    found = _kind(kind)
    person, form = await form_for(request, found.scope)
    settings = await _settings(request, person)
    entries = project_settings.entries_of(settings, found.setting)
    at = len(entries)
    typed = typed_of(form, found.fields)
    if place is not None:
        project_settings.entry_of(settings, found.setting, place)
        at = next(n for n, each in enumerate(entries) if each[found.key] == place)
        # What it is called by stays: what names it would lose it, and it would lose its secret.
        typed[found.key] = place
    try:
        await context_of(request).db.write(
            project_settings.put_entry,
            asking(request, person),
            found.setting,
            found.entry(typed),
            place_of=place,
            acknowledges=bool(typed.get("acknowledges")),
        )
    except BotsRefusal as error:
        faults = bot_setting_forms.faults(found, error, at)
        asks = isinstance(error, Trifecta) and person.caller.allows("bots:admin")
        return _form_page(request, person, kind, typed, faults, place=place, asks=asks)
    return to(f"/settings#{kind}")


@router.post("/settings/bots/{kind}/delete")
async def remove(request: Request, kind: str) -> Response:
    """Remove one, when its name was typed."""
    found = _kind(kind)
    person, form = await form_for(request, found.scope)
    place = request.query_params.get("of", "")
    project_settings.entry_of(await _settings(request, person), found.setting, place)
    if form.get("name") != place.strip():
        raise invalid("name", f"is not {place}, so nothing was deleted")
    await context_of(request).db.write(project_settings.remove_entry, asking(request, person), found.setting, place)
    return to(f"/settings#{kind}")


def _form_page(
    request: Request,
    person: Person,
    kind: str,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    *,
    place: str | None = None,
    asks: bool = False,
) -> Response:
    """The form of one. asks: whether somebody has to say that they know what tools can do together."""
    return page(
        request,
        "bot_setting_form",
        person,
        400 if faults else 200,
        section="/settings",
        kind=kind,
        place=place,
        # A secret that was typed is not sent back.
        typed={**typed, **dict.fromkeys(_SECRETS, "")},
        faults=faults,
        asks=asks,
    )
