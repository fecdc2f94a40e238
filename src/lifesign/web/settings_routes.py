"""HTTP of a project's settings: who is told at last, what is kept for how long, and when silence is expected."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast, get_args

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.audit import rules as audit
from lifesign.bots import project_settings as bots
from lifesign.bots.budget import PERIOD_KINDS
from lifesign.bots.records import ProjectSettings
from lifesign.bots.rules import PLANS
from lifesign.bots.tools import SERVER_LABELS
from lifesign.channels import service as channels
from lifesign.channels.service import Channel
from lifesign.clock import EpochMs
from lifesign.diagnosis.alerts import Alert
from lifesign.diagnosis.findings import Level
from lifesign.engine import retention
from lifesign.faults import InvalidInput, invalid
from lifesign.heartbeats.rules import HeartbeatLimitReached
from lifesign.http.context import context_of
from lifesign.http.validation import validate
from lifesign.incidents import policies
from lifesign.incidents.rules import Policy
from lifesign.incidents.service import tuning_of
from lifesign.maintenance import bodies as windows
from lifesign.maintenance import rules as window_rules
from lifesign.maintenance import service as maintenance
from lifesign.maintenance.rules import Window
from lifesign.maintenance.service import Coverage
from lifesign.preferences import bodies
from lifesign.preferences import service as preferences
from lifesign.preferences.service import Preferences
from lifesign.settings import Settings
from lifesign.web import bot_forms, window_forms
from lifesign.web import status_service as status
from lifesign.web.access import Form, form_for, person_for, person_of
from lifesign.web.forms import duration_of
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person
from lifesign.web.status import StatusPage

router = APIRouter(include_in_schema=False)

_CHANNELS = 1000
_POLICIES = 1000
_WINDOWS = 200
_DAY_MS = 86_400_000
_LEVELS: tuple[Level, ...] = get_args(Level)


class Kept(NamedTuple):
    """How long something is kept. variable: what changes it; empty: nothing does."""

    what: str
    days: int
    variable: str = ""


def kept_of(settings: Settings) -> list[Kept]:
    """What this server keeps for how long."""
    return [
        Kept("Events other than check-ins", settings.event_days, "LIFESIGN_EVENT_DAYS"),
        Kept("Telemetry", settings.telemetry_retention_days, "LIFESIGN_TELEMETRY_RETENTION_DAYS"),
        Kept("Diagnosis packets", settings.packet_retention_days, "LIFESIGN_PACKET_RETENTION_DAYS"),
        Kept("Incidents that are over", retention.INCIDENTS_MS // _DAY_MS),
        Kept("Messages", retention.NOTIFICATIONS_MS // _DAY_MS),
        Kept("Messages that were given up", retention.DEAD_NOTIFICATIONS_MS // _DAY_MS),
        Kept("Audit log", audit.KEPT_MS // _DAY_MS),
    ]


class ShownWindow(NamedTuple):
    """A maintenance window, until when it is open (None: it is not), and when that changes next."""

    window: Window
    open_until: EpochMs | None
    next_at: EpochMs | None
    lasts: str


class Seen(NamedTuple):
    """What the page of settings shows."""

    preferences: Preferences
    channels: Sequence[Channel]
    policies: Sequence[Policy]
    windows: Sequence[ShownWindow]
    status_pages: Sequence[StatusPage]
    bots: ProjectSettings


# The project --------------------------------------------------------------------------------------------------------
@router.get("/settings")
async def show(request: Request) -> Response:
    """What is set for the project, and what the server keeps."""
    person = await person_of(request)
    return await settings_page(request, person, {})


@router.post("/settings")
async def change(request: Request) -> Response:
    """Change what is set for the project."""
    person, form = await form_for(request, "channels:write")
    context = context_of(request)
    values: dict[str, Any] = {"fallbackChannel": form.get("fallback") or None, "diagnosisAlert": None}
    if form.get("alert"):
        values["diagnosisAlert"] = {"policy": form.get("alert"), "severity": form.get("severity")}
    try:
        body = validate(bodies.SettingsChanges, values)
        wanted = body.diagnosisAlert
        await context.db.write(
            preferences.change,
            person.caller,
            {
                "fallback_channel": body.fallbackChannel,
                "alert": None if wanted is None else Alert(wanted.policy, wanted.severity),
            },
            tuning=tuning_of(context.settings),
            max_heartbeats=context.settings.max_heartbeats,
            now=context.now(),
        )
    except InvalidInput as error:
        return await settings_page(request, person, _faults(error))
    except HeartbeatLimitReached as error:
        return await settings_page(request, person, {"": str(error)})
    return to("/settings")


def _faults(error: InvalidInput) -> dict[str, str]:
    names = {"fallbackChannel": "fallback", "diagnosisAlert.policy": "alert", "diagnosisAlert.severity": "severity"}
    found: dict[str, str] = {}
    for fault in error.faults:
        name = names.get(fault.field, "")
        found.setdefault(name, fault.message if name else f"{fault.field} {fault.message}")
    return found


async def settings_page(
    request: Request, person: Person, faults: Mapping[str, str], typed: Mapping[str, str] | None = None
) -> Response:
    """The page of settings. typed: what was refused of the bots' part; None: what is set."""
    context = context_of(request)
    seen: Seen = await context.db.read(_seen, person.shown.project_id, context.now())
    return page(
        request,
        "settings",
        person,
        400 if faults else 200,
        section="/settings",
        seen=seen,
        kept=kept_of(context.settings),
        levels=_LEVELS,
        faults=faults,
        may_change=person.caller.allows("channels:write"),
        may_announce=person.caller.allows("heartbeats:write"),
        may_run_bots=person.caller.allows("bots:admin"),
        may_set_bots=person.caller.allows("bots:write"),
        offered=request.app.state.providers.shown_to(person.shown.project_id),
        usual_labels=sorted(SERVER_LABELS),
        typed=typed or bot_forms.settings_typed(seen.bots),
        plans=[(each, each) for each in PLANS],
        periods=[(each, each) for each in PERIOD_KINDS],
    )


def _seen(conn: Connection, project_id: str, now: EpochMs) -> Seen:
    found = maintenance.list_windows(conn, project_id, limit=_WINDOWS, after=None)
    shown = [
        ShownWindow(
            each,
            window_rules.open_until(each, now),
            window_rules.next_edge(each, now),
            duration_of(
                each.duration_ms if each.duration_ms is not None else (each.ends_at or 0) - (each.starts_at or 0)
            ),
        )
        for each in found
    ]
    # Open ones first, then those to come, then those that are over.
    shown.sort(key=lambda each: (each.open_until is None, each.next_at is None, each.next_at or 0))
    return Seen(
        preferences.of_project(conn, project_id),
        channels.list_channels(conn, project_id, limit=_CHANNELS, after=None),
        policies.list_policies(conn, project_id, limit=_POLICIES, after=None),
        shown,
        status.pages_of(conn, project_id, limit=_WINDOWS),
        bots.settings_of(conn, project_id),
    )


def _lasts_ms(window: Window) -> int:
    return window.duration_ms or (window.ends_at or 0) - (window.starts_at or 0)


# Maintenance windows ------------------------------------------------------------------------------------------------
@router.get("/settings/maintenance/new")
async def show_new_window(request: Request) -> Response:
    """The form that announces a maintenance window."""
    person = await person_for(request, "heartbeats:write")
    return _window_page(request, person, window_forms.BLANK, {})


@router.post("/settings/maintenance/new")
async def announce(request: Request) -> Response:
    """Announce a maintenance window."""
    person, form = await form_for(request, "heartbeats:write")
    typed = _typed(form)
    context = context_of(request)
    try:
        body = validate(windows.NewWindow, window_forms.values_of(typed))
        await context.db.write(
            maintenance.create,
            person.shown.project_id,
            windows.definition_of(body),
            coverage=_coverage(request),
            now=context.now(),
        )
    except InvalidInput as error:
        return _window_page(request, person, typed, window_forms.faults_of(error))
    return to("/settings")


@router.get("/settings/maintenance/{window_id}/edit")
async def show_window(request: Request, window_id: str) -> Response:
    """The form that changes a maintenance window."""
    person = await person_for(request, "heartbeats:write")
    window: Window = await context_of(request).db.read(maintenance.get, person.shown.project_id, window_id)
    return _window_page(request, person, window_forms.fields_of(window), {}, window=window)


@router.post("/settings/maintenance/{window_id}/edit")
async def change_window(request: Request, window_id: str) -> Response:
    """Change a maintenance window, open or not."""
    person, form = await form_for(request, "heartbeats:write")
    typed = _typed(form)
    context = context_of(request)
    window: Window = await context.db.read(maintenance.get, person.shown.project_id, window_id)
    try:
        body = validate(windows.WindowChanges, window_forms.values_of(typed))
        await context.db.write(
            maintenance.edit,
            person.shown.project_id,
            window.id,
            windows.changes_of(body),
            check=windows.edited,
            coverage=_coverage(request),
            now=context.now(),
        )
    except InvalidInput as error:
        return _window_page(request, person, typed, window_forms.faults_of(error), window=window)
    return to("/settings")


@router.post("/settings/maintenance/{window_id}/delete")
async def delete_window(request: Request, window_id: str) -> Response:
    """Delete a maintenance window, when its name was typed; one that is open ends now."""
    person, form = await form_for(request, "heartbeats:write")
    context = context_of(request)
    window: Window = await context.db.read(maintenance.get, person.shown.project_id, window_id)
    if form.get("name") != window.name.strip():
        raise invalid("name", "is not the name of this maintenance window, so nothing was deleted")
    await context.db.write(
        maintenance.delete, person.shown.project_id, window.id, coverage=_coverage(request), now=context.now()
    )
    return to("/settings")


def _typed(form: Form) -> dict[str, str]:
    return {name: form.get(name) for name in window_forms.FIELDS}


def _window_page(
    request: Request,
    person: Person,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    *,
    window: Window | None = None,
) -> Response:
    return page(
        request,
        "window_form",
        person,
        400 if faults else 200,
        section="/settings",
        typed=typed,
        faults=faults,
        window=window,
    )


def _coverage(request: Request) -> Coverage:
    return cast("Coverage", request.app.state.coverage)
