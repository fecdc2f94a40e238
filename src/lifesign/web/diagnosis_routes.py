"""HTTP of diagnosis' pages: what stands out in a window of telemetry, with evidence, and what people decided."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple, cast, get_args

import orjson
from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs, parse_timestamp
from lifesign.diagnosis import report, service, verification
from lifesign.diagnosis.asked import MAX_ENVIRONMENT
from lifesign.diagnosis.ledger import STATES, Entry, LedgerState
from lifesign.diagnosis.service import Decided, Decision, Diagnoses, Order, StoredPacket
from lifesign.diagnosis.texts import counts, percent
from lifesign.diagnosis.verification import Question
from lifesign.faults import invalid
from lifesign.http.body import still_asked
from lifesign.http.context import base_url, context_of
from lifesign.http.paging import is_id
from lifesign.telemetry.asked import storable
from lifesign.telemetry.wire import Json
from lifesign.web.access import Form, form_for, person_of
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person
from lifesign.web.telemetry_routes import WINDOWS

router = APIRouter(include_in_schema=False)

_SCOPE: Final = "runs:write"
_LISTED: Final = 50
_ENTRIES: Final = 200
_DECISIONS: Final[tuple[Decision, ...]] = get_args(Decision)
_is_packet = is_id("pkt")

SEVERITIES: Final[Mapping[str, str]] = {"critical": "firing", "high": "firing", "medium": "late", "low": "idle"}
LOOKS: Final[Mapping[str, str]] = {
    "new": "firing",
    "ongoing": "late",
    "regressed": "firing",
    "fixed": "alive",
    "unverified": "idle",
}


def _diagnoses(request: Request) -> Diagnoses:
    return cast("Diagnoses", request.app.state.diagnoses)


# All of them --------------------------------------------------------------------------------------------------------
class Listed(NamedTuple):
    """What the first page shows: packets without issues, newest first, and the ledger."""

    heads: list[Json]
    older: str
    entries: list[Entry]


@router.get("/diagnosis")
async def show_all(request: Request) -> Response:
    """The issues that are known, the diagnoses that were made, and a form for the next one."""
    person = await person_of(request)
    before = request.query_params.get("before", "")
    state = next((each for each in STATES if each == request.query_params.get("state")), None)
    listed: Listed = await context_of(request).db.read(
        _listed, person.shown.project_id, before=before if _is_packet(before) else None, state=state
    )
    return page(
        request,
        "diagnosis",
        person,
        section="/diagnosis",
        listed=listed,
        state_wanted=state,
        states=STATES,
        looks=LOOKS,
        windows=WINDOWS,
        may_diagnose=person.caller.allows(_SCOPE),
        base=base_url(request),
    )


def _listed(conn: Connection, project_id: str, *, before: str | None, state: LedgerState | None) -> Listed:
    found = service.heads(conn, project_id, limit=_LISTED + 1, before=before)
    shown = found[:_LISTED]
    older = shown[-1][0] if len(found) > _LISTED else ""
    entries = service.list_entries(conn, project_id, state=state, limit=_ENTRIES, after=None)
    return Listed([orjson.loads(head) for _, head in shown], older, entries)


@router.post("/diagnosis")
async def diagnose(request: Request) -> Response:
    """Diagnose a window that ends now."""
    person, form = await form_for(request, _SCOPE)
    environment = storable(form.get("environment"))
    if len(environment) > MAX_ENVIRONMENT:
        raise invalid("environment", f"must be at most {MAX_ENVIRONMENT} characters long")
    order = Order(_minutes(form), environment=environment or None)
    packet = await _diagnoses(request).diagnose(person.shown.project_id, order, partial(still_asked, request))
    return to(f"/packets/{packet.id}")


# One of them --------------------------------------------------------------------------------------------------------
@router.get("/packets/{packet_id}")
async def show(request: Request, packet_id: str) -> Response:
    """One diagnosis: its issues, the worst first, with evidence and what to do next."""
    person = await person_of(request)
    return await _shown(request, person, packet_id, None)


@router.post("/packets/{packet_id}/decisions")
async def decide(request: Request, packet_id: str) -> Response:
    """Record what a person says of an issue: approved or dismissed, with their name."""
    person, form = await form_for(request, _SCOPE)
    context = context_of(request)
    fingerprint = storable(form.raw("fingerprint"))
    decision = next((each for each in _DECISIONS if each == form.get("decision")), None)
    if decision is None:
        raise invalid("decision", f"must be one of {', '.join(_DECISIONS)}")
    decided = Decided(fingerprint, decision, person.email, context.now())
    await context.db.write(service.decide, person.shown.project_id, packet_id, decided)
    return to(f"/packets/{packet_id}#{anchor(fingerprint)}")


@router.post("/packets/{packet_id}/verify")
async def verify(request: Request, packet_id: str) -> Response:
    """Whether the issues of a diagnosis are over, as what arrived since shows."""
    person, form = await form_for(request, _SCOPE)
    question = Question(_minutes(form), packet_id=packet_id)
    db = context_of(request).db
    told = await verification.verify(
        _diagnoses(request), db, person.shown.project_id, question, partial(still_asked, request)
    )
    return await _shown(request, person, packet_id, told)


def _minutes(form: Form) -> int:
    """The window that was chosen. Raises InvalidInput."""
    chosen = next((each.minutes for each in WINDOWS if str(each.minutes) == form.get("minutes")), None)
    if chosen is None:
        raise invalid("minutes", f"must be one of {', '.join(str(each.minutes) for each in WINDOWS)}")
    return chosen


def anchor(fingerprint: str) -> str:
    """The name of an issue's place in its page."""
    return "issue-" + fingerprint.replace(":", "-")


class Seen(NamedTuple):
    """A packet, and what was said last of its issues, by fingerprint."""

    packet: StoredPacket
    decisions: Mapping[str, Decided]


def _seen(conn: Connection, project_id: str, packet_id: str) -> Seen:
    packet = service.find_packet(conn, project_id, packet_id)
    return Seen(packet, service.decisions(conn, packet.id))


class Listing(NamedTuple):
    """An issue as it is shown. ticket: the same in Markdown."""

    issue: Json
    first_seen: EpochMs
    last_seen: EpochMs
    anchor: str
    look: str
    decided: Decided | None
    verdict: Json | None
    ticket: str


async def _shown(request: Request, person: Person, packet_id: str, told: Json | None) -> Response:
    seen: Seen = await context_of(request).db.read(_seen, person.shown.project_id, packet_id)
    packet = service.packet_json(seen.packet)
    verdicts = {} if told is None else {each["fingerprint"]: each for each in told["results"]}
    address = f"{base_url(request)}/packets/{packet_id}"
    return page(
        request,
        "packet",
        person,
        section="/diagnosis",
        packet=packet,
        made_at=seen.packet.created_at,
        since=seen.packet.since,
        until=seen.packet.until,
        told=told,
        issues=[
            Listing(
                each,
                parse_timestamp(each["first_seen"]),
                parse_timestamp(each["last_seen"]),
                anchor(each["fingerprint"]),
                SEVERITIES.get(each["severity"], "idle"),
                seen.decisions.get(each["fingerprint"]),
                verdicts.get(each["fingerprint"]),
                ticket_of(each, address),
            )
            for each in packet["issues"]
        ],
        looks=LOOKS,
        severities=SEVERITIES,
        windows=WINDOWS,
        counts=counts,
        percent=percent,
        may_decide=person.caller.allows(_SCOPE),
    )


# Any: JSON of a packet.
def ticket_of(issue: dict[str, Any], address: str) -> str:
    """An issue in Markdown, to be put into a ticket. What senders wrote stays text."""
    text = report.escaped
    lines = [
        f"## {text(issue['title'])}",
        "",
        f"- Severity: {issue['severity']}, {issue['state']}",
        f"- Operation: {text(issue['operation'])}",
        *report.particulars_of(issue),
        f"- Next: {text(issue['next_action'])}",
        f"- From: {address}",
        "",
        "Evidence:",
        "",
        *(f"- `{each}`" for each in issue["evidence_ids"]),
    ]
    return "\n".join(lines) + "\n"
