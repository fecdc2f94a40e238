"""HTTP of API keys: which there are, a new one shown once, and one taken back."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth import rules, schemas
from lifesign.auth import service as auth
from lifesign.auth.service import Key, Keyring
from lifesign.clock import EpochMs, rfc3339
from lifesign.faults import InvalidInput, invalid
from lifesign.http.context import context_of
from lifesign.http.paging import is_id
from lifesign.http.validation import validate
from lifesign.web.access import form_for, person_of
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person

router = APIRouter(include_in_schema=False)

_ROWS = 100
_DAY_MS = 86_400_000
_LIVES: Mapping[str, str] = {"": "never", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
_is_key = is_id("key")
# What each allows, in the words of the reference; those of other APIs follow by name.
WORDS: Mapping[str, str] = {
    "checkins:write": "check in, and nothing else: for jobs",
    "heartbeats:read": "read heartbeats, incidents and messages",
    "heartbeats:write": "make, change and acknowledge heartbeats",
    "policies:read": "read policies",
    "policies:write": "make and change policies",
    "channels:read": "read channels, secrets masked",
    "channels:write": "make, change and test channels",
    "systems:read": "read systems and inventories",
    "systems:write": "make and change systems",
    "telemetry:write": "send spans",
    "telemetry:read": "read spans and sessions",
    "runs:write": "have telemetry diagnosed",
    "dashboard:read": "read the dashboard",
    "reports:read": "read reports",
    "bots:read": "read bots",
    "bots:write": "make and change bots",
    "bots:run": "run bots",
    "bots:admin": "limits and the stop switch of bots",
    "keys:read": "list keys",
    "keys:write": "make and revoke keys",
    rules.ALL: "everything",
}


class Row(NamedTuple):
    """A key as the list shows it."""

    key: Key
    last_used_at: EpochMs | None
    is_expired: bool


@router.get("/keys")
async def show_all(request: Request) -> Response:
    """Every key of the project, never its token."""
    person = await person_of(request)
    return await _page_of(request, person)


@router.post("/keys")
async def make(request: Request) -> Response:
    """Make a key; this answer shows its token, and no other."""
    person, form = await form_for(request, "keys:write")
    context = context_of(request)
    now = context.now()
    chosen = [each for each in rules.KNOWN_SCOPES if form.get(f"scope-{each}")]
    life = form.get("life")
    values: dict[str, object] = {"name": form.get("name"), "scopes": chosen}
    if life in _LIVES and life:
        values["expiresAt"] = rfc3339(EpochMs(now + int(life) * _DAY_MS))
    try:
        body = validate(schemas.NewKey, values)
        key, token = await context.db.write(
            auth.create_key, person.caller, name=body.name, scopes=body.scopes, expires_at=body.expiresAt, now=now
        )
    except InvalidInput as error:
        typed = {"name": form.get("name"), "life": life}
        return await _page_of(request, person, typed=typed, chosen=chosen, faults=_faults(error))
    return await _page_of(request, person, made=key, token=token)


def _faults(error: InvalidInput) -> dict[str, str]:
    found: dict[str, str] = {}
    for fault in error.faults:
        field = fault.field.partition("[")[0]
        if field == "scopes":
            found.setdefault("scopes", "must be at least one")
        else:
            found.setdefault(field if field == "name" else "", fault.message)
    return found


@router.post("/keys/{key_id}/revoke")
async def revoke(request: Request, key_id: str) -> Response:
    """Take a key back from the next request on, when its name was typed."""
    person, form = await form_for(request, "keys:write")
    context = context_of(request)
    await context.db.write(_revoked, person.shown.project_id, key_id, form.get("name"), context.now())
    _keyring(request).forget()
    return to("/keys")


def _revoked(conn: Connection, project_id: str, key_id: str, typed: str, now: EpochMs) -> None:
    if typed != auth.get_key(conn, project_id, key_id).name.strip():
        raise invalid("name", "is not the name of this key, so nothing was revoked")
    auth.revoke_key(conn, project_id, key_id, now)


async def _page_of(
    request: Request,
    person: Person,
    *,
    made: Key | None = None,
    token: str = "",
    typed: Mapping[str, str] | None = None,
    chosen: Sequence[str] = ("checkins:write",),
    faults: Mapping[str, str] | None = None,
) -> Response:
    context = context_of(request)
    after = request.query_params.get("after", "")
    found = await context.db.read(
        auth.list_keys, person.shown.project_id, limit=_ROWS + 1, after=after if _is_key(after) else None
    )
    keyring, now = _keyring(request), context.now()
    rows = [Row(each, keyring.last_used(each), rules.is_expired(each.expires_at, now)) for each in found[:_ROWS]]
    return page(
        request,
        "keys",
        person,
        400 if faults else 200,
        section="/keys",
        rows=rows,
        has_more=len(found) > _ROWS,
        made=made,
        token=token,
        typed=typed or {"name": "", "life": ""},
        chosen=chosen,
        faults=faults or {},
        scopes=sorted(((each, WORDS.get(each, "")) for each in rules.KNOWN_SCOPES), key=_place),
        lives=list(_LIVES.items()),
        may_change=person.caller.allows("keys:write"),
    )


def _place(scope: tuple[str, str]) -> int:
    """Those that most keys need come first."""
    known = list(WORDS)
    return known.index(scope[0]) if scope[0] in known else len(known)


def _keyring(request: Request) -> Keyring:
    return cast("Keyring", request.app.state.keyring)
