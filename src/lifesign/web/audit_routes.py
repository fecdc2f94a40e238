"""HTTP of the audit log: who wrote what, newest first."""

from typing import NamedTuple, get_args
from urllib.parse import urlencode

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.audit import service as audit
from lifesign.audit.rules import Line, Via
from lifesign.http.context import context_of
from lifesign.web.access import person_of
from lifesign.web.pages import page

router = APIRouter(include_in_schema=False)

_ROWS = 100
_ACTORS = 200
_LONGEST_SEQ = 18
_LONGEST = 300
_VIAS: tuple[Via, ...] = get_args(Via)


class Listed(NamedTuple):
    """A page of the log, and everybody who is in it."""

    lines: list[Line]
    has_more: bool
    actors: list[str]


@router.get("/audit")
async def show(request: Request) -> Response:
    """Every write of the last year."""
    person = await person_of(request)
    query = request.query_params
    before = query.get("before", "")
    actor = query.get("actor", "").replace("\x00", "")[:_LONGEST]
    via = next((each for each in _VIAS if each == query.get("via")), None)
    is_seq = before.isascii() and before.isdigit() and len(before) <= _LONGEST_SEQ
    listed: Listed = await context_of(request).db.read(
        _listed, person.shown.project_id, before=int(before) if is_seq else None, actor=actor or None, via=via
    )
    kept = {name: value for name, value in (("actor", actor), ("via", via or "")) if value}
    older = urlencode(kept | {"before": str(listed.lines[-1].seq)}) if listed.has_more else ""
    return page(
        request,
        "audit",
        person,
        section="/audit",
        listed=listed,
        vias=_VIAS,
        actor=actor,
        via=via,
        older=older,
        is_filtered=bool(kept) or is_seq,
    )


def _listed(conn: Connection, project_id: str, *, before: int | None, actor: str | None, via: Via | None) -> Listed:
    lines = audit.lines_of(conn, project_id, limit=_ROWS + 1, before=before, actor=actor, via=via)
    return Listed(lines[:_ROWS], len(lines) > _ROWS, audit.actors_of(conn, project_id, _ACTORS))
