"""HTTP of diagnosis: packets, the ledger, verification."""

from functools import partial
from typing import cast

import orjson
from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.service import telemetry_caller
from lifesign.clock import EpochMs, rfc3339
from lifesign.diagnosis import asked, service, shown, verification
from lifesign.diagnosis.ledger import STATES, Entry
from lifesign.diagnosis.service import Diagnoses
from lifesign.diagnosis.store import Place, StoredPacket
from lifesign.http.answers import MadeJson
from lifesign.http.body import still_asked
from lifesign.http.context import context_of
from lifesign.http.describe import Refusal
from lifesign.http.ok import Json, ok_answer, ok_operation, query_integer
from lifesign.telemetry.asked import cursor_of, place_of
from lifesign.telemetry.describe import CURSOR, READ_REFUSALS, limit_parameter

router = APIRouter(tags=["Diagnosis"])

_LISTED, _MOST_LISTED = 50, 200
_REFUSALS = {
    400: Refusal(
        "The body is none of what it may be; the message names the field.",
        "invalid_parameter",
        "since_minutes must be an integer from 1 to 43200",
    ),
    503: Refusal(
        "Another diagnosis of the project runs (`busy`), this one took too long (`diagnosis_timeout`), or the storage "
        "does not answer: try again after `Retry-After` seconds.",
        "busy",
        "Another diagnosis of this project is running, try again",
        header="Retry-After",
    ),
}
_NO_VERB = {405: Refusal("`diagnose` and `verify` are no packets.", "method_not_allowed", "Method not allowed")}
_NO_PACKET = {404: Refusal("No such packet, or it is another project's.", "packet_not_found", "Packet not found")}


def diagnoses_of(request: Request) -> Diagnoses:
    """What the diagnoses of this node share."""
    return cast("Diagnoses", request.app.state.diagnoses)


@router.post(
    "/v1/runs/diagnose",
    **ok_operation(
        "diagnose",
        answer=(200, shown.Diagnosed),
        body=shown.Order,
        is_body_required=False,
        examples={"The last hour": {"since_minutes": 60}},
        links={"packet_id=packet/packet_id": ("readPacket",)},
        refusals=_REFUSALS,
    ),
)
async def diagnose(request: Request) -> Response:
    """Diagnose a window by fixed rules: what fails, loops, slows down or costs more, with evidence; and keep it."""
    caller = await telemetry_caller(request, "runs:write")
    order = await asked.order_of(request)
    return _whole(await diagnoses_of(request).diagnose(caller.project_id, order, partial(still_asked, request)))


def _whole(packet: StoredPacket) -> Response:
    return MadeJson(b'{"ok":true,"packet":' + service.packet_bytes(packet) + b"}")


@router.post(
    "/v1/runs/verify",
    **ok_operation(
        "verify",
        answer=(200, shown.Verification),
        body=shown.Question,
        examples={"One issue": {"fingerprints": ["tool_call_failed:9f1c8e2d3b4a5f60"], "since_minutes": 60}},
        errors=(404,),
        refusals=_REFUSALS | _NO_PACKET,
    ),
)
async def verify(request: Request) -> Response:
    """Whether the issues of a packet are over, as what arrived since shows: silence counts once there is enough."""
    caller = await telemetry_caller(request, "runs:write")
    question = await asked.question_of(request)
    db = context_of(request).db
    told = await verification.verify(
        diagnoses_of(request), db, caller.project_id, question, partial(still_asked, request)
    )
    return ok_answer(told)


@router.get(
    "/v1/runs",
    **ok_operation(
        "listPackets",
        answer=(200, shown.PacketList),
        errors=(400,),
        refusals=READ_REFUSALS,
        parameters=(limit_parameter(_MOST_LISTED, _LISTED), CURSOR),
    ),
)
async def list_packets(request: Request) -> Response:
    """Packets without their issues, newest first."""
    caller = await telemetry_caller(request, "reports:read")
    limit = query_integer(request, "limit", 1, _MOST_LISTED, default=_LISTED)
    before = place_of(request, "runs", caller.project_id, lambda _, key: key)
    found = await context_of(request).db.read(service.heads, caller.project_id, limit=limit + 1, before=before)
    page = found[:limit]
    cursor = cursor_of("runs", caller.project_id, (0, page[-1][0])) if len(found) > limit else None
    runs = [orjson.loads(head) for _, head in page]
    return ok_answer({"count": len(runs), "runs": runs, "next_cursor": cursor})


class _PacketId(Convertor[str]):
    """The ids of packets, beside which stand the names of what is done, where `GET` is no method."""

    regex = "pkt_[^/]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("packet_id", _PacketId())


@router.get(
    "/v1/runs/{packet_id:packet_id}",
    **ok_operation(
        "readPacket", answer=(200, shown.Diagnosed), errors=(404, 405), refusals=READ_REFUSALS | _NO_PACKET | _NO_VERB
    ),
)
async def read_packet(request: Request, packet_id: str) -> Response:
    """A packet, the same to the byte as when it was made."""
    caller = await telemetry_caller(request, "reports:read")
    found = await context_of(request).db.read(service.find_packet, caller.project_id, packet_id)
    return _whole(found)


@router.get(
    "/v1/issues",
    **ok_operation(
        "listIssues",
        answer=(200, shown.Ledger),
        errors=(400,),
        refusals=READ_REFUSALS,
        parameters=(
            {"name": "state", "in": "query", "schema": {"type": "string", "enum": list(STATES)}},
            limit_parameter(_MOST_LISTED, _LISTED),
            CURSOR,
        ),
    ),
)
async def list_issues(request: Request) -> Response:
    """What is known of every issue, over all packets; the last seen first."""
    caller = await telemetry_caller(request, "reports:read")
    state = asked.state_of(request)
    limit = query_integer(request, "limit", 1, _MOST_LISTED, default=_LISTED)
    after = place_of(request, "issues", caller.project_id, _place)
    found = await context_of(request).db.read(
        service.list_entries, caller.project_id, state=state, limit=limit + 1, after=after
    )
    page = found[:limit]
    cursor = None
    if len(found) > limit:
        last = page[-1]
        cursor = cursor_of("issues", caller.project_id, (last.last_seen, f"{last.fingerprint} {last.environment}"))
    return ok_answer({"count": len(page), "issues": [_shown_entry(each) for each in page], "next_cursor": cursor})


def _place(at: int, key: str) -> Place:
    fingerprint, _, environment = key.partition(" ")
    return Place(EpochMs(at), fingerprint, environment)


def _shown_entry(entry: Entry) -> Json:
    def time(at: EpochMs | None) -> str | None:
        return None if at is None else rfc3339(at)

    return {
        "fingerprint": entry.fingerprint,
        "environment": entry.environment or None,
        "ruleset": entry.ruleset,
        "signal_type": entry.signal_type,
        "title": entry.title,
        "state": entry.state,
        "first_seen": time(entry.first_seen),
        "last_seen": time(entry.last_seen),
        "last_packet_id": entry.last_packet_id,
        "fixed_at": time(entry.fixed_at),
        "fixed_version": entry.fixed_version,
        "regressed_at": time(entry.regressed_at),
        "count": entry.count,
        "exposure": entry.exposure,
        "versions": list(entry.versions),
    }
