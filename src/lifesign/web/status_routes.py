"""HTTP of public status pages: made by those who may, seen by everybody while they are on."""

from collections.abc import Mapping
from typing import cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs
from lifesign.faults import InvalidInput, invalid
from lifesign.heartbeats.board import State
from lifesign.http.context import base_url, context_of
from lifesign.http.validation import validate
from lifesign.web import status_service as service
from lifesign.web.access import Form, form_for, person_for, theme_of
from lifesign.web.incident_routes import REASONS
from lifesign.web.pages import HEADERS, feed, page
from lifesign.web.routes import to
from lifesign.web.rules import Person
from lifesign.web.status import SlugTaken, StatusPage, Wanted

router = APIRouter(include_in_schema=False)

# So long an answer is good for everybody: a page that many look at costs little.
_FRESH_MS = 5000
_MAX_KEPT = 1000
# Open pages look so often for what is new: strangers get no stream.
_ASKS_EVERY_S = 60
_FIELDS = ("title", "slug", "description", "members", "is_on")
# What each state is to those who only look at it from outside.
PUBLIC: Mapping[State, tuple[str, str]] = {
    "firing": ("firing", "down"),
    "snoozed": ("firing", "down"),
    "late": ("late", "late"),
    "acknowledged": ("held", "being looked into"),
    "never_seen": ("idle unseen-yet", "not started yet"),
    "alive": ("alive", "working"),
    "paused": ("idle", "paused"),
    "done": ("idle", "done"),
}


class StatusAnswers:
    """Answers of status pages that are a few seconds old at most. One per node."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[EpochMs, bytes]] = {}

    def get(self, key: tuple[object, ...], now: EpochMs) -> bytes | None:
        """The answer, if it is still fresh."""
        made_at, body = self._kept.get(key, (EpochMs(0), None))
        return body if body is not None and 0 <= now - made_at < _FRESH_MS else None

    def keep(self, key: tuple[object, ...], body: bytes, now: EpochMs) -> None:
        """An answer that was made a moment ago."""
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[key] = (now, body)


# What everybody sees ------------------------------------------------------------------------------------------------
@router.get("/status/{slug}")
async def show(request: Request, slug: str) -> Response:
    """The state of what was chosen, its last days, and what happened."""
    body = await _answer(request, slug, "status")
    return Response(body, headers=HEADERS, media_type="text/html")


@router.get("/status/{slug}/rss.xml")
async def show_feed(request: Request, slug: str) -> Response:
    """What happened, as RSS."""
    body = await _answer(request, slug, "feed")
    return Response(body, headers=HEADERS, media_type="application/rss+xml")


async def _answer(request: Request, slug: str, kind: str) -> bytes:
    context = context_of(request)
    now = context.now()
    found: StatusPage = await context.db.read(service.find, slug)
    answers = cast("StatusAnswers", request.app.state.status_answers)
    # By its address as well: links of a feed begin with it.
    key = (kind, found.id, found.updated_at, theme_of(request), base_url(request))
    kept = answers.get(key, now)
    if kept is not None:
        return kept
    shown: service.Shown = await context.db.read(service.shown, found, now)
    worst = next((each for each in _WORST_FIRST if any(PUBLIC[m.state][1] == each for m in shown.members)), "working")
    make = page if kind == "status" else feed
    body = bytes(
        make(
            request,
            "status" if kind == "status" else "status_rss",
            None,
            shown=shown,
            looks=PUBLIC,
            worst=worst,
            reasons=REASONS,
            day_count=service.DAYS,
            base=base_url(request),
            asks_every_s=_ASKS_EVERY_S,
        ).body
    )
    answers.keep(key, body, now)
    return body


_WORST_FIRST = ("down", "late", "being looked into")


# Making and changing ------------------------------------------------------------------------------------------------
@router.get("/settings/status/new")
async def show_new(request: Request) -> Response:
    """The form that makes a status page."""
    person = await person_for(request, "heartbeats:write")
    return _form_page(request, person, dict.fromkeys(_FIELDS, ""), {})


@router.post("/settings/status/new")
async def make(request: Request) -> Response:
    """Make a status page."""
    person, form = await form_for(request, "heartbeats:write")
    typed = _typed(form)
    context = context_of(request)
    try:
        await context.db.write(service.create, person.shown.project_id, _wanted(typed), context.now())
    except (InvalidInput, SlugTaken) as error:
        return _form_page(request, person, typed, _faults(error))
    return to("/settings#status")


@router.get("/settings/status/{status_id}/edit")
async def show_edit(request: Request, status_id: str) -> Response:
    """The form that changes a status page."""
    person = await person_for(request, "heartbeats:write")
    found: StatusPage = await context_of(request).db.read(service.get, person.shown.project_id, status_id)
    typed = {
        "title": found.title,
        "slug": found.slug,
        "description": found.description,
        "members": "\n".join(found.heartbeats),
        "is_on": "on" if found.is_on else "",
    }
    return _form_page(request, person, typed, {}, status=found)


@router.post("/settings/status/{status_id}/edit")
async def change(request: Request, status_id: str) -> Response:
    """Change a status page, or switch it on or off."""
    person, form = await form_for(request, "heartbeats:write")
    typed = _typed(form)
    context = context_of(request)
    found: StatusPage = await context.db.read(service.get, person.shown.project_id, status_id)
    try:
        await context.db.write(service.edit, person.shown.project_id, found.id, _wanted(typed), context.now())
    except (InvalidInput, SlugTaken) as error:
        return _form_page(request, person, typed, _faults(error), status=found)
    return to("/settings#status")


@router.post("/settings/status/{status_id}/delete")
async def delete(request: Request, status_id: str) -> Response:
    """Delete a status page, when its title was typed."""
    person, form = await form_for(request, "heartbeats:write")
    context = context_of(request)
    found: StatusPage = await context.db.read(service.get, person.shown.project_id, status_id)
    if form.get("name") != found.title.strip():
        raise invalid("name", "is not the title of this status page, so nothing was deleted")
    await context.db.write(service.delete, person.shown.project_id, found.id)
    return to("/settings#status")


def _typed(form: Form) -> dict[str, str]:
    return {name: form.get(name) for name in _FIELDS}


def _wanted(typed: Mapping[str, str]) -> Wanted:
    members = [line for each in typed["members"].split("\n") if (line := each.strip())]
    return validate(Wanted, {**typed, "members": members, "is_on": bool(typed["is_on"])})


def _faults(error: InvalidInput | SlugTaken) -> dict[str, str]:
    if isinstance(error, SlugTaken):
        return {"slug": str(error)}
    found: dict[str, str] = {}
    for fault in error.faults:
        field = fault.field.partition("[")[0]
        about = (
            f"{fault.message}: {fault.value}" if field == "members" and isinstance(fault.value, str) else fault.message
        )
        found.setdefault(field if field in _FIELDS else "", about)
    return found


def _form_page(
    request: Request,
    person: Person,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    *,
    status: StatusPage | None = None,
) -> Response:
    return page(
        request,
        "status_form",
        person,
        400 if faults else 200,
        section="/settings",
        typed=typed,
        faults=faults,
        shown_page=status,
        base=base_url(request),
    )
