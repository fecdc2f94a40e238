"""HTTP of the usage page: what the Vitals API is asked, how often it fails, and how long it takes."""

from collections.abc import Mapping
from typing import Final, NamedTuple, cast, get_args

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs, rfc3339
from lifesign.http.context import base_url, context_of
from lifesign.usage import service as usage
from lifesign.usage.log import UsageLog
from lifesign.usage.rules import Range
from lifesign.usage.service import Errors, Metrics, Overview
from lifesign.web import charts
from lifesign.web.access import person_of
from lifesign.web.charts import Chart
from lifesign.web.pages import page

router = APIRouter(include_in_schema=False)

_ERRORS: Final = 50
RANGES: Final[Mapping[Range, str]] = {"24h": "Last day", "7d": "Last week", "30d": "Last 30 days"}
_LOOKS: Final = {"answered": "idle", "refused": "late", "failed": "firing"}


class Seen(NamedTuple):
    """What the page shows."""

    overview: Overview
    metrics: Metrics
    errors: Errors


@router.get("/usage")
async def show(request: Request) -> Response:
    """The numbers of the whole server, as its dashboards tell them."""
    person = await person_of(request)
    wanted: Range = next((each for each in get_args(Range) if each == request.query_params.get("range")), "24h")
    context = context_of(request)
    await cast("UsageLog", request.app.state.usage).settle()
    seen: Seen = await context.db.read(_seen, wanted, context.now())
    return page(
        request,
        "usage",
        person,
        section="/usage",
        seen=seen,
        ranges=RANGES,
        wanted=wanted,
        chart=_chart(seen.metrics, RANGES[wanted]),
        errors=seen.errors.page[:_ERRORS],
        base=base_url(request),
    )


def _seen(conn: Connection, wanted: Range, now: EpochMs) -> Seen:
    errors = usage.recent_errors(conn, limit=_ERRORS, after=None)
    return Seen(usage.overview(conn, now), usage.metrics(conn, wanted, now), errors)


def _chart(metrics: Metrics, name: str) -> Chart:
    columns = [
        (
            _named(each.at, metrics.range),
            {
                "answered": each.total - each.errors,
                "refused": each.errors - each.server_errors,
                "failed": each.server_errors,
            },
        )
        for each in metrics.series
    ]
    return charts.bars(columns, _LOOKS, f"Requests, {name.lower()} (UTC)")


def _named(at: EpochMs, of: Range) -> str:
    text = rfc3339(at)
    return text[11:16] if of == "24h" else text[5:10]
