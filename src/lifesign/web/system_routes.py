"""HTTP of systems: which machines live, what they consist of, and their credentials, which are shown once."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import orjson
from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.client.agent import UNIT, curl_line
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.faults import invalid
from lifesign.heartbeats.rules import HeartbeatLimitReached
from lifesign.http.context import base_url, context_of
from lifesign.http.paging import cursor_of, key_in
from lifesign.incidents import policies
from lifesign.incidents.rules import Policy
from lifesign.incidents.service import tuning_of
from lifesign.inventory.service import Snapshot, StoredChange
from lifesign.systems import bodies, rules, service
from lifesign.systems.rules import InventoryNotFound, Liveness, ValidationFailed, Windows
from lifesign.systems.service import Filters, Position, Totals, Watched
from lifesign.web import forms
from lifesign.web.access import Form, form_for, person_for, person_of
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person

router = APIRouter(include_in_schema=False)

_ROWS = 50
_CHANGES = 50
_POLICIES = 1000
_LONGEST = 200
_MAX_SHOWN_DOCUMENT = 65_536
_STATUSES: tuple[Liveness, ...] = get_args(Liveness)
FIELDS = ("name", "type", "fqdn", "tags", "notes", "interval", "policy")

# How each state looks, and what it is called.
LOOKS: Mapping[str, tuple[str, str]] = {
    "alive": ("alive", "alive"),
    "dead": ("firing", "dead"),
    "zombie": ("idle unseen-yet", "never seen"),
    "suspended": ("idle", "suspended"),
}
_WORDS: Mapping[str, str] = {
    "required": "is required",
    "invalid_type": "is of another kind than is expected here",
    "invalid_format": "is not of the form that is expected here",
    "invalid_value": "is none of those that are known",
    "out_of_range": "is too short, too long, too small or too large",
    "unknown_field": "is not known",
    "not_found": "is not there",
}
_HINTS: Mapping[str, str] = {
    "interval": f"must be a duration from {bodies.MIN_INTERVAL_S} s to a day, such as 90s, 10m or 1h",
    "tags": f"must be at most {bodies.MAX_TAGS}, each of 1 to 50 letters, digits and _.:-",
}


class Row(NamedTuple):
    """A system as the list shows it."""

    watched: Watched
    state: str
    look: str
    word: str


class Listed(NamedTuple):
    """A page of systems."""

    rows: Sequence[Row]
    has_more: bool
    totals: Totals
    policies: Mapping[str, str]
    seq: int


def state_of(watched: Watched, windows: Windows, now: EpochMs) -> str:
    """What is shown of a system: how it lives, or that nobody looks."""
    system = watched.system
    if system.suspended_at is not None:
        return "suspended"
    return rules.liveness(system.last_heartbeat, windows.of(system.interval_s).alive_ms, now)


# Many ---------------------------------------------------------------------------------------------------------------
@router.get("/systems")
async def show_all(request: Request) -> Response:
    """Every machine, newest first, and how many live."""
    person = await person_of(request)
    context = context_of(request)
    query = request.query_params
    wanted = query.get("state", "")
    search = query.get("q", "").replace("\x00", "").strip()[:_LONGEST]
    filters = Filters(
        status=next((each for each in _STATUSES if each == wanted), None),
        is_suspended={"suspended": True}.get(wanted, None if wanted not in _STATUSES else False),
        search=search or None,
    )
    listed: Listed = await context.db.read(
        _listed,
        person.shown.project_id,
        filters,
        windows=service.windows_of(context.settings),
        after=_position(query.get("after", "")),
        now=context.now(),
    )
    last = listed.rows[-1].watched.system if listed.rows else None
    return page(
        request,
        "systems",
        person,
        section="/systems",
        seq=listed.seq,
        listed=listed,
        looks=LOOKS,
        wanted=wanted if wanted in LOOKS else "",
        search=search,
        after=cursor_of(f"{last.created_at}:{last.id}") if last and listed.has_more else "",
        is_filtered=filters != Filters() or "after" in query,
        may_change=person.caller.allows("systems:write"),
        base=base_url(request),
    )


def _position(cursor: str) -> Position | None:
    at, _, system_id = (key_in(cursor) or "").partition(":")
    if not (at.isascii() and at.isdigit() and len(at) <= 15) or rules.normalized_ref(system_id) != system_id:  # noqa: PLR2004 - what the year 9999 has
        return None
    return Position(EpochMs(int(at)), system_id)


def _listed(
    conn: Connection, project_id: str, filters: Filters, *, windows: Windows, after: Position | None, now: EpochMs
) -> Listed:
    # First of all: what is committed after this is told to the page.
    seq = events.latest_seq(conn)
    found = service.list_watched(conn, project_id, filters, windows=windows, limit=_ROWS + 1, after=after, now=now)
    rows = [Row(each, state := state_of(each, windows, now), *LOOKS[state]) for each in found[:_ROWS]]
    totals = service.totals(conn, project_id, alive_ms=windows.alive_ms, is_for_all=False, now=now)
    names = {each.id: each.name for each in policies.list_policies(conn, project_id, limit=_POLICIES, after=None)}
    return Listed(rows, len(found) > _ROWS, totals, names, seq)


# Making and changing ------------------------------------------------------------------------------------------------
@router.get("/systems/new")
async def show_new(request: Request) -> Response:
    """The form that registers a machine."""
    person = await person_for(request, "systems:write")
    return await _form_page(request, person, dict.fromkeys(FIELDS, ""), {})


@router.post("/systems/new")
async def make(request: Request) -> Response:
    """Register a machine; this answer shows its secret, and no other."""
    person, form = await form_for(request, "systems:write")
    typed = _typed(form)
    context = context_of(request)
    secret = rules.new_secret()
    try:
        made: Watched = await context.db.write(
            service.create,
            person.caller,
            bodies.definition_of(bodies.checked(bodies.NewSystem, orjson.dumps(_values(typed, {})))),
            chosen_id=None,
            secret=secret,
            windows=service.windows_of(context.settings),
            max_heartbeats=context.settings.max_heartbeats,
            now=context.now(),
        )
    except ValidationFailed as error:
        return await _form_page(request, person, typed, _faults(error))
    except HeartbeatLimitReached as error:
        return await _form_page(request, person, typed, {"": str(error)})
    return await _page_of(request, person, made.system.id, secret=secret)


@router.get("/systems/{system}/edit")
async def show_edit(request: Request, system: str) -> Response:
    """The form that changes a machine."""
    person = await person_for(request, "systems:write")
    watched: Watched = await context_of(request).db.read(service.watched, person.shown.project_id, system)
    found = watched.system
    typed = {
        "name": found.name,
        "type": found.type,
        "fqdn": found.fqdn,
        "tags": " ".join(found.tags),
        "notes": found.notes,
        "interval": "" if found.interval_s is None else forms.duration_of(found.interval_s * 1000),
        "policy": watched.heartbeat.policy_id or "",
    }
    return await _form_page(request, person, typed, {}, watched=watched)


@router.post("/systems/{system}/edit")
async def change(request: Request, system: str) -> Response:
    """Change a machine."""
    person, form = await form_for(request, "systems:write")
    typed = _typed(form)
    context = context_of(request)
    watched: Watched = await context.db.read(service.watched, person.shown.project_id, system)
    cleared: dict[str, Any] = {"type": "", "fqdn": "", "notes": "", "tags": [], "interval": None, "policy": None}
    try:
        body = bodies.checked(bodies.SystemChanges, orjson.dumps(_values(typed, cleared)))
        await context.db.write(
            service.edit,
            person.caller,
            watched.system.id,
            bodies.changes_of(body),
            windows=service.windows_of(context.settings),
            tuning=tuning_of(context.settings),
            now=context.now(),
        )
    except ValidationFailed as error:
        return await _form_page(request, person, typed, _faults(error), watched=watched)
    return to(f"/systems/{watched.system.id}")


def _typed(form: Form) -> dict[str, str]:
    return {name: form.get(name) for name in FIELDS}


def _values(typed: Mapping[str, str], blank: Mapping[str, Any]) -> dict[str, Any]:
    """A body of the API; blank: what stands for an empty field, where it is not left out. Any: JSON."""
    values: dict[str, Any] = {**blank, "name": typed["name"]} | {name: typed[name] for name in FIELDS if typed[name]}
    if typed["interval"]:
        values["interval"] = forms.seconds_of(typed["interval"])
    if typed["tags"]:
        values["tags"] = typed["tags"].replace(",", " ").split()
    return values


def _faults(error: ValidationFailed) -> dict[str, str]:
    found: dict[str, str] = {}
    for flaw in error.flaws:
        field = flaw.key.partition("[")[0]
        found.setdefault(field if field in FIELDS else "", _HINTS.get(field, _WORDS[flaw.message]))
    return found


async def _form_page(
    request: Request,
    person: Person,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    *,
    watched: Watched | None = None,
) -> Response:
    context = context_of(request)
    known = await context.db.read(policies.list_policies, person.shown.project_id, limit=_POLICIES, after=None)
    return page(
        request,
        "system_form",
        person,
        400 if faults else 200,
        section="/systems",
        system=None if watched is None else watched.system,
        typed=typed,
        faults=faults,
        policies=known,
        usual=forms.duration_of(service.windows_of(context.settings).interval_ms),
    )


# Looking ------------------------------------------------------------------------------------------------------------
class Seen(NamedTuple):
    """What the page of a system shows. document: the newest inventory, compressed."""

    watched: Watched
    policy: Policy | None
    changes: Sequence[StoredChange]
    latest: Snapshot | None
    document: str
    seq: int


@router.get("/systems/{system}")
async def show(request: Request, system: str) -> Response:
    """One machine: whether it lives, what changed in it, and how it reports."""
    person = await person_of(request)
    return await _page_of(request, person, system)


async def _page_of(request: Request, person: Person, ref: str, *, secret: str = "") -> Response:
    context = context_of(request)
    now, windows = context.now(), service.windows_of(context.settings)
    seen: Seen = await context.db.read(_seen, person.shown.project_id, ref)
    system = seen.watched.system
    state = state_of(seen.watched, windows, now)
    return page(
        request,
        "system",
        person,
        section="/systems",
        seq=seen.seq,
        watched=seen.watched.heartbeat.id,
        seen=seen,
        each=system,
        heartbeat=seen.watched.heartbeat,
        state=state,
        look=LOOKS[state][0],
        word=LOOKS[state][1],
        windows=windows.of(system.interval_s),
        every=forms.duration_of(windows.of(system.interval_s).interval_ms),
        alert=forms.duration_of(windows.of(system.interval_s).alert_ms),
        severities={"critical": "firing", "high": "late"},
        secret=secret,
        unit=UNIT,
        curl=curl_line(base_url(request), system.id),
        base=base_url(request),
        host=base_url(request).partition("://")[2].partition(":")[0],
        may_change=person.caller.allows("systems:write"),
    )


def _seen(conn: Connection, project_id: str, ref: str) -> Seen:
    seq = events.latest_seq(conn)
    watched = service.watched(conn, project_id, ref)
    policy = None
    if watched.heartbeat.policy_id is not None:
        policy = policies.find_policy(conn, project_id, watched.heartbeat.policy_id)
    changes = service.inventory_changes(
        conn, project_id, watched.system.id, limit=_CHANGES, before=None, category=None, severity=None, since=None
    )
    try:
        latest, document = service.latest_inventory(conn, project_id, watched.system.id)
    except InventoryNotFound:
        return Seen(watched, policy, changes, None, "", seq)
    return Seen(watched, policy, changes, latest, _readable(document), seq)


def _readable(compressed: bytes) -> str:
    """An inventory as it is read; only the beginning of a long one, which is not unpacked any further."""
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(compressed, _MAX_SHOWN_DOCUMENT)
    if not unpacker.eof:
        return raw.decode(errors="ignore") + " ..."
    return orjson.dumps(orjson.loads(raw), option=orjson.OPT_INDENT_2).decode()


# Doing --------------------------------------------------------------------------------------------------------------
@router.post("/systems/{system}/secret")
async def renew_secret(request: Request, system: str) -> Response:
    """Give a machine another secret, which this answer shows, and no other; the old one counts no more."""
    person, _ = await form_for(request, "systems:write")
    context = context_of(request)
    secret = rules.new_secret()
    after = await context.db.write(service.regenerate_secret, person.shown.project_id, system, secret, context.now())
    return await _page_of(request, person, after.id, secret=secret)


@router.post("/systems/{system}/suspend")
async def suspend(request: Request, system: str) -> Response:
    """Refuse its reports, and wait for none."""
    person, _ = await form_for(request, "systems:write")
    context = context_of(request)
    after: Watched = await context.db.write(service.suspend, person.caller, system, context.now())
    return to(f"/systems/{after.system.id}")


@router.post("/systems/{system}/reactivate")
async def reactivate(request: Request, system: str) -> Response:
    """Take its reports again."""
    person, _ = await form_for(request, "systems:write")
    context = context_of(request)
    after: Watched = await context.db.write(service.reactivate, person.caller, system, context.now())
    return to(f"/systems/{after.system.id}")


@router.post("/systems/{system}/delete")
async def delete(request: Request, system: str) -> Response:
    """Delete it with its credentials and its inventory, when its name was typed."""
    person, form = await form_for(request, "systems:write")
    context = context_of(request)
    found = await context.db.read(service.get, person.shown.project_id, system)
    if form.get("name") != found.name.strip():
        raise invalid("name", "is not the name of this system, so nothing was deleted")
    await context.db.write(
        service.delete, person.caller, found.id, tuning=tuning_of(context.settings), now=context.now()
    )
    return to("/systems")
