"""HTTP of the dashboards. Each reads what this process has counted so far, and is counted itself thereafter."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.vitals.schemas import Json, vitals_operation
from lifesign.auth.vitals.service import vitals_caller
from lifesign.clock import EpochMs
from lifesign.http.context import context_of
from lifesign.http.paging import cursor_of, key_in
from lifesign.usage import rules, schemas, service
from lifesign.usage.key_routes import good, log_of
from lifesign.usage.rules import InvalidPage
from lifesign.usage.schemas import MAX_ERRORS_SHOWN
from lifesign.usage.service import Position

router = APIRouter(prefix="/api/dashboard", tags=["Vitals dashboard"])

# Of an id, and of any instant that can be told.
_MAX_DIGITS = 18


@router.get("/overview", **vitals_operation("getDashboardOverview", answer=(200, schemas.DashboardOverviewAnswer)))
async def read_overview(request: Request) -> Response:
    """Tell how many keys there are, and how many requests came. The numbers are the whole server's."""
    await vitals_caller(request)
    await log_of(request).settle()
    context = context_of(request)
    found = await context.db.read(service.overview, context.now())
    return good({"overview": schemas.shown_overview(found)})


@router.get(
    "/metrics",
    **vitals_operation(
        "getDashboardMetrics",
        answer=(200, schemas.DashboardMetricsAnswer),
        parameters=(schemas.RANGE,),
        errors=(400,),
        refusals=schemas.RANGE_REFUSALS,
    ),
)
async def read_metrics(request: Request) -> Response:
    """Tell how many requests came in each hour or day, how many failed, and how long they took."""
    await vitals_caller(request)
    wanted = rules.range_of(request.query_params.get("range"))
    await log_of(request).settle()
    context = context_of(request)
    found = await context.db.read(service.metrics, wanted, context.now())
    return good(schemas.shown_metrics(found))


@router.get(
    "/recent-errors",
    **vitals_operation(
        "getDashboardRecentErrors",
        answer=(200, schemas.DashboardRecentErrorsAnswer),
        parameters=schemas.ERROR_PAGING,
        errors=(400,),
        refusals=schemas.PAGE_REFUSALS,
    ),
)
async def read_recent_errors(request: Request) -> Response:
    """Tell which requests failed of late, by what was asked and what was answered."""
    await vitals_caller(request)
    given = request.query_params.get("limit")
    limit, after = _limit(given), _position(request.query_params.get("cursor"))
    await log_of(request).settle()
    found, total = await context_of(request).db.read(service.recent_errors, limit=limit, after=after)
    shown = found[:limit]
    body: Json = {"errors": [schemas.shown_error(each) for each in shown], "total": total}
    if given is not None and len(found) > limit:
        body["next_cursor"] = cursor_of(f"{shown[-1].last_seen}.{shown[-1].id}")
    return good(body)


def _limit(text: str | None) -> int:
    if text is None:
        return MAX_ERRORS_SHOWN
    if not (_is_number(text) and 1 <= int(text) <= MAX_ERRORS_SHOWN):
        raise InvalidPage(f"limit must be an integer from 1 to {MAX_ERRORS_SHOWN}")
    return int(text)


def _position(cursor: str | None) -> Position | None:
    if cursor is None:
        return None
    last_seen, dot, number = (key_in(cursor) or "").partition(".")
    if not (dot and _is_number(last_seen) and _is_number(number)):
        raise InvalidPage("cursor is not a cursor of this list")
    return Position(EpochMs(int(last_seen)), int(number))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
