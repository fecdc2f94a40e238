"""How the server tells of itself: `/health`, `/ready`, `/metrics`; and, for tests, its clock."""

import asyncio
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy import Connection, text
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lifesign import __version__
from lifesign.channels import outbox
from lifesign.clock import EpochMs, ManualClock, rfc3339
from lifesign.db import Database, StorageUnavailable
from lifesign.documents import texts
from lifesign.engine import metrics
from lifesign.engine.driver import Driver
from lifesign.faults import Fault, InvalidInput
from lifesign.http.answers import json_answer, without_absent
from lifesign.http.body import parse_object, read_body
from lifesign.http.context import base_url, context_of
from lifesign.http.description import Description
from lifesign.http.fields import Body, Integer
from lifesign.http.llms import llms_text
from lifesign.http.validation import validate
from lifesign.incidents import service as incidents
from lifesign.telemetry.store import SpanStore, StoreUnavailable
from lifesign.usage.metrics import USAGE_BUFFER
from lifesign.vitals.metrics import VITALS_STREAMS, VITALS_WAITING
from lifesign.vitals.service import Vitals

router = APIRouter(tags=["Server"])
testing_router = APIRouter(include_in_schema=False)

_S = 1000
_DATABASE_TIMEOUT_S = 5.0
_MAX_LAG_MS = 30_000
_LONGEST_ADVANCE_MS = 10 * 365 * 24 * 3600 * _S


class Health(BaseModel):
    """The process answers."""

    status: str
    version: str


class Readiness(BaseModel):
    """Whether the server does its work."""

    ready: bool
    database: str
    telemetry: str
    loops: dict[str, Any]
    outbox: dict[str, Any]


@router.get("/health", response_model=Health, operation_id="health")
async def health() -> Response:
    """Answer while the process lives."""
    return json_answer({"status": "ok", "version": __version__})


@router.get(
    "/ready",
    response_model=Readiness,
    operation_id="ready",
    responses={503: {"model": Readiness, "description": "Not ready."}},
)
async def ready(request: Request) -> Response:
    """Tell whether the database answers and every loop of the engine runs; and how the store of telemetry is."""
    context = context_of(request)
    driver = cast("Driver", request.app.state.driver)
    now = context.now()
    # At once: whoever asks does not wait twice for one PostgreSQL that is away.
    (database, figures), telemetry = await asyncio.gather(
        _asked_database(context.db, now), _asked_store(request.app.state.store)
    )
    if database == "ok" and context.db.refusal is not None:
        database = context.db.refusal
    if database == "ok" and driver.pulses["alive"].has_failed:
        database = "refuses writes"  # reading still works: a full disk, or a standby
    loops = {loop.name: _pulse(driver, loop.name) for loop in driver.loops}
    runs = all(_is_alive(driver, loop.name, loop.idle_ms, now) for loop in driver.loops)
    # The store has no say: without it the node still takes check-ins and tells people, and a proxy that left the node
    # alone for it would keep them away.
    is_ready = database == "ok" and runs and driver.pulses["sweep"].lag_ms < _MAX_LAG_MS
    told = {"ready": is_ready, "database": database, "telemetry": telemetry, "loops": loops, "outbox": figures}
    return json_answer(told, 200 if is_ready else 503)


async def _asked_database(db: Database, now: EpochMs) -> tuple[str, dict[str, int]]:
    """`ok` or why not, and the figures of the outbox."""
    try:
        async with asyncio.timeout(_DATABASE_TIMEOUT_S):
            return "ok", await db.read(_outbox_figures, now)
    except (StorageUnavailable, TimeoutError) as error:
        return f"unavailable: {type(error).__name__}", {"oldestPendingSeconds": 0, "dead": 0}


async def _asked_store(store: SpanStore) -> str:
    """`ok` or why not."""
    try:
        async with asyncio.timeout(_DATABASE_TIMEOUT_S):
            # Every project is read from the same place; this is the cheapest question, and none has this name.
            await store.lag("")
    except (StoreUnavailable, TimeoutError) as error:
        return f"unavailable: {type(error).__name__}"
    return "ok"


def _outbox_figures(conn: Connection, now: EpochMs) -> dict[str, int]:
    conn.execute(text("SELECT 1"))
    ages = [age for _, age in outbox.figures(conn, now).values()]
    return {"oldestPendingSeconds": max(ages, default=0) // _S, "dead": outbox.count_dead(conn)}


def _pulse(driver: Driver, name: str) -> dict[str, Any]:
    pulse = driver.pulses[name]
    return without_absent(
        {"lagMs": pulse.lag_ms, "lastTick": None if pulse.last_tick is None else rfc3339(pulse.last_tick)}
    )


def _is_alive(driver: Driver, name: str, idle_ms: int, now: EpochMs) -> bool:
    if driver.is_manual:
        return True
    active_at = driver.pulses[name].active_at
    return active_at is not None and now - active_at <= 3 * idle_ms + 5 * _S


@router.get("/metrics", response_class=PlainTextResponse, operation_id="metrics")
async def show_metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    context = context_of(request)
    waiting, breakers, (opened, unattended) = await context.db.read(_gauges, context.now())
    metrics.OUTBOX_PENDING.clear()
    metrics.OUTBOX_OLDEST.clear()
    for kind, (count, age_ms) in waiting.items():
        metrics.OUTBOX_PENDING.labels(kind).set(count)
        metrics.OUTBOX_OLDEST.labels(kind).set(age_ms / _S)
    metrics.BREAKER_OPEN.clear()
    for kind, count in breakers.items():
        metrics.BREAKER_OPEN.labels(kind).set(count)
    USAGE_BUFFER.set(len(request.app.state.usage))
    vitals = cast("Vitals", request.app.state.vitals)
    VITALS_STREAMS.set(vitals.sessions.open_streams)
    VITALS_WAITING.set(vitals.workers.waiting)
    driver = cast("Driver", request.app.state.driver)
    metrics.SWEEP_LAG.set(driver.lag_ms("sweep", context.now()) / _S)
    metrics.INCIDENTS_OPEN.set(opened)
    metrics.INCIDENTS_UNATTENDED.set(unattended)
    return Response(generate_latest(metrics.REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _gauges(conn: Connection, now: EpochMs) -> tuple[dict[str, tuple[int, int]], dict[str, int], tuple[int, int]]:
    return outbox.figures(conn, now), outbox.open_breakers(conn), incidents.count_open(conn)


@router.get("/llms.txt", response_class=PlainTextResponse, operation_id="llms")
async def show_llms(request: Request) -> Response:
    """Tell what this API can do, in plain text."""
    description: Description = request.app.state.description
    document = orjson.loads(await description.text())
    return PlainTextResponse(llms_text(document, texts.links(base_url(request))))


async def show_openapi(request: Request) -> Response:
    """Tell what this API can do, for programs."""
    description: Description = request.app.state.description
    return Response(await description.text(), media_type="application/json")


openapi_route = Route("/openapi.json", show_openapi, include_in_schema=False)


# For black-box tests ------------------------------------------------------------------------------------------------
class Advance(Body):
    """How far to turn the manual clock."""

    ms: Annotated[int, Integer(0, _LONGEST_ADVANCE_MS)]


@testing_router.post("/_test/advance")
async def advance(request: Request) -> Response:
    """Turn the manual clock; everything that falls due on the way happens, sends included."""
    body = validate(Advance, parse_object(await read_body(request), required=True))
    context = context_of(request)
    if not isinstance(context.clock, ManualClock):
        raise InvalidInput(Fault("ms", "only a manual clock can be turned: set LIFESIGN_CLOCK=manual"))
    driver = cast("Driver", request.app.state.driver)
    next_due = await driver.advance(body.ms)
    return json_answer(
        without_absent({"now": rfc3339(context.now()), "nextDue": None if next_due is None else rfc3339(next_due)})
    )


@testing_router.get("/_test/clock")
async def show_clock(request: Request) -> Response:
    """Tell the node's time."""
    return json_answer({"now": rfc3339(context_of(request).now())})
