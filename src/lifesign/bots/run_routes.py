"""HTTP of runs: triggered, looked at, cancelled, done by others; and the switch that stops them all."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import orjson
import structlog
from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import bearer_token
from lifesign.bots import (
    asking,
    bodies,
    claiming,
    ending,
    looking,
    outside,
    rules,
    run_schemas,
    run_store,
    running,
    schemas,
    starting,
    stopping,
    store,
)
from lifesign.bots.bodies import Fields
from lifesign.bots.calls import MAX_BODY_BYTES, Call, Paging, call_of, next_cursor, paging_of, ref_of
from lifesign.bots.execution import Executor
from lifesign.bots.outside import Hold
from lifesign.bots.records import Bot, Run
from lifesign.bots.routes import described, in_query
from lifesign.bots.rules import InvalidBody, InvalidField, MissingField, ScheduleNotFound
from lifesign.http.answers import json_answer
from lifesign.http.body import read_body
from lifesign.http.context import context_of, header_of
from lifesign.http.describe import Schema

log = structlog.get_logger("lifesign.bots")

router = APIRouter(tags=["Bots"])

_LOOK_S = 0.5
_ACCEPTED = 202
_MAX_KEY = 255
_RUN = in_query("project_id", "run_id", required=("project_id", "run_id"))


def executor_of(request: Request) -> Executor:
    """Who does runs on this node."""
    return cast("Executor", request.app.state.bots)


def _is_halted(request: Request) -> bool:
    return context_of(request).settings.bots_stopped


# Triggered ----------------------------------------------------------------------------------------------------------
_TRIGGER: tuple[Schema, ...] = (
    {
        "name": "async",
        "in": "query",
        "description": "`true`: answer at once, with 202.",
        "schema": {"type": "boolean", "default": False},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key within 24 hours is the same run.",
        "schema": {"type": "string", "maxLength": 255},
    },
)


def _trigger_operation() -> dict[str, Any]:  # Any: arguments of a FastAPI route
    told = described(
        "triggerHeartbeat",
        answer=(200, run_schemas.ResultBody),
        body=schemas.HeartbeatRef,
        parameters=_TRIGGER,
        errors=(404,),
    )
    told["responses"][_ACCEPTED] = {
        "model": run_schemas.AcceptedBody,
        "description": "With `async=true`: the run, which goes on by itself.",
    }
    return told


@router.post("/v1/bot/heartbeat/trigger", **_trigger_operation())
async def trigger_heartbeat(request: Request) -> Response:
    """Run a schedule now, and wait for it; works while it is disabled."""
    call = await call_of(request, "bots:run")
    ref, schedule_id = call.bot_ref(), call.text_id("heartbeat_id")
    is_async = Fields(call.query).flag("async")
    run = await context_of(request).db.write(
        claiming.trigger, call.ask, ref, schedule_id, idem_key=_idem_key(request), is_halted=_is_halted(request)
    )
    log.info("bot_run.triggered", project_id=call.project_id, run_id=run.id, key_id=call.caller.key_id)
    if is_async:
        told = {"uuid": run.id, "status": run.status, "reason": run.reason}
        return json_answer({"run": told}, _ACCEPTED)
    return json_answer({"result": run_schemas.result(await _ended(request, run))})


def _idem_key(request: Request) -> str | None:
    key = header_of(request, b"idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= _MAX_KEY:
        raise InvalidField("Idempotency-Key", f"must be 1 to {_MAX_KEY} characters")
    return key.decode("latin-1")


async def _ended(request: Request, run: Run) -> Run:
    """The run once it has ended, or waits for somebody; whoever hangs up ends only the waiting."""
    ends, db = executor_of(request).ends, context_of(request).db
    try:
        while run.status in {"queued", "running"}:
            # Another node may do it, so it is looked at again and again.
            await ends.wait(run.id, _LOOK_S)
            found = await db.read(run_store.run_by_id, run.id)
            if found is None:
                # Deleted with its bot.
                return replace(run, status="cancelled", reason="deleted", error_message=rules.CANCELS["deleted"])
            run = found
    finally:
        ends.forget(run.id)
    return run


# Looked at ----------------------------------------------------------------------------------------------------------
@router.get(
    "/v1/bot/heartbeat/run",
    **described("getBotRun", answer=(200, run_schemas.RunBody), parameters=_RUN, errors=(404,)),
)
async def read_run(request: Request) -> Response:
    """Read a run."""
    call = await call_of(request, "bots:read")
    run = await context_of(request).db.read(running.run_of, call.project_id, call.text_id("run_id"))
    return json_answer({"run": run_schemas.log(run)})


@router.get(
    "/v1/bot/heartbeat/transcript",
    **described("getBotTranscript", answer=(200, run_schemas.TranscriptBody), parameters=_RUN, errors=(404,)),
)
async def read_transcript(request: Request) -> Response:
    """Read what was said in a run; while it goes on, so far."""
    call = await call_of(request, "bots:read")
    entries, is_cut = await context_of(request).db.read(looking.transcript, call.project_id, call.text_id("run_id"))
    return json_answer({"transcript": [run_schemas.entry(each) for each in entries], "truncated": is_cut})


@router.get(
    "/v1/bot/heartbeat/logs",
    **described(
        "getHeartbeatLogs",
        answer=(200, run_schemas.LogsBody),
        parameters=in_query(
            "project_id",
            "bot_id",
            "heartbeat_id",
            "member_id",
            "status",
            "page",
            "per_page",
            "limit",
            "cursor",
            required=("project_id", "bot_id"),
        ),
        errors=(404,),
    ),
)
async def list_logs(request: Request) -> Response:
    """List what became of a bot's runs, newest first; without `status` only those that ended."""
    call = await call_of(request, "bots:read")
    ref = call.bot_ref()
    context = context_of(request)
    bot = await context.db.read(asking.get_bot, call.project_id, ref)
    status = call.fields.choice("status", rules.STATUSES)
    paging = paging_of(call, per_page=20)
    found, total = await context.db.read(_logs, call, bot, status, paging)
    body: dict[str, Any] = {
        "total": total,
        "logs": [run_schemas.log(each) for each in found[: paging.limit]],
        "pagination": schemas.pagination(paging.page or 1, paging.limit, total),
    }
    if paging.page is None and len(found) > paging.limit:
        body["next_cursor"] = next_cursor(found[paging.limit - 1].id)
    return json_answer(body)


def _logs(conn: Connection, call: Call, bot: Bot, status: str | None, paging: Paging) -> tuple[list[Run], int]:
    schedule_id, member = call.id("heartbeat_id"), call.id("member_id")
    member_id = None
    if member is not None:
        found = store.member_by_ref(conn, call.project_id, ref_of(member))
        if found is None:
            return [], 0
        member_id = found.id
    if schedule_id is not None:
        schedule_id = bodies.text_of(schedule_id)
        is_known = store.schedule_by_id(conn, bot.id, schedule_id) is not None
        if not is_known and not _had_runs(conn, bot.id, schedule_id):
            raise ScheduleNotFound
    which: dict[str, Any] = {"status": status, "schedule_id": schedule_id, "member_id": member_id}
    runs = run_store.list_runs(conn, bot.id, **which, limit=paging.limit + 1, offset=paging.offset, before=paging.after)
    return runs, run_store.count_runs(conn, bot.id, **which)


def _had_runs(conn: Connection, bot_id: str, schedule_id: str) -> bool:
    return bool(run_store.list_runs(conn, bot_id, status=None, schedule_id=schedule_id, member_id=None, limit=1))


@router.get(
    "/v1/bot/heartbeat/stats",
    **described(
        "getHeartbeatStats",
        answer=(200, run_schemas.StatsBody),
        parameters=in_query("project_id", "bot_id", "days", required=("project_id", "bot_id")),
        errors=(404,),
    ),
)
async def read_stats(request: Request) -> Response:
    """What became of a bot's runs over some days, today (in UTC) included."""
    call = await call_of(request, "bots:read")
    ref = call.bot_ref()
    bot = await context_of(request).db.read(asking.get_bot, call.project_id, ref)
    days = call.fields.integer("days", 1, 365) or 30
    return json_answer({"stats": await context_of(request).db.read(looking.numbers, bot, days, call.now)})


# Cancelled and stopped ----------------------------------------------------------------------------------------------
@router.post(
    "/v1/bot/heartbeat/cancel",
    **described("cancelBotRun", answer=(200, run_schemas.RunBody), body=run_schemas.RunRef, errors=(404,)),
)
async def cancel_run(request: Request) -> Response:
    """End a run: one that waits at once, one that goes on within 5 s."""
    call = await call_of(request, "bots:run")
    run = await context_of(request).db.write(ending.cancel, call.project_id, call.text_id("run_id"), call.now)
    log.info("bot_run.cancelled", project_id=call.project_id, run_id=run.id, key_id=call.caller.key_id)
    if run.status in rules.ENDED:
        executor_of(request).ends.tell(run.id)
    return json_answer({"run": run_schemas.log(run)})


@router.post(
    "/v1/bot/heartbeat/approve",
    **described("approveBotRun", answer=(200, run_schemas.RunBody), body=run_schemas.Approval, errors=(404, 409)),
)
async def approve_run(request: Request) -> Response:
    """Decide about the call of a tool that a run waits with: it goes on, with the call or with its refusal."""
    call = await call_of(request, "bots:run")
    run_id = call.text_id("run_id")
    found = await context_of(request).db.read(running.run_of, call.project_id, run_id)
    is_approved = call.fields.flag("approve")
    if is_approved is None:
        raise MissingField("approve")
    run = await context_of(request).db.write(
        ending.approve, call.project_id, found.id, is_approved=is_approved, now=call.now
    )
    log.info(
        "bot_run.decided",
        project_id=call.project_id,
        run_id=run.id,
        key_id=call.caller.key_id,
        is_approved=is_approved,
    )
    return json_answer({"run": run_schemas.log(run)})


@router.post("/v1/bot/stop", **described("stopBots", answer=(200, run_schemas.StoppedBody), body=run_schemas.Stop))
async def stop_bots(request: Request) -> Response:
    """Let no run of the project begin, and cancel those that go on."""
    call = await call_of(request, "bots:admin")
    cancels = call.fields.flag("cancel_running")
    reason = call.fields.text("reason", 500)
    count = await context_of(request).db.write(stopping.stop_project, call.ask, reason, cancels=cancels is not False)
    log.warning("bots.stopped", project_id=call.project_id, key_id=call.caller.key_id, cancelled=count)
    return json_answer({"stopped": 1, "cancelled": count})


@router.post(
    "/v1/bot/resume", **described("resumeBots", answer=(200, run_schemas.ResumedBody), body=schemas.ProjectRef)
)
async def resume_bots(request: Request) -> Response:
    """Let runs begin again; slots that passed are not caught up."""
    call = await call_of(request, "bots:admin")
    await context_of(request).db.write(stopping.resume_project, call.ask)
    log.info("bots.resumed", project_id=call.project_id, key_id=call.caller.key_id)
    return json_answer({"stopped": 0})


# Done by others -----------------------------------------------------------------------------------------------------
@router.post(
    "/v1/bot/runs/claim",
    **described("claimBotRun", answer=(200, run_schemas.ClaimedBody), body=run_schemas.Claim, errors=(404,)),
)
async def claim_run(request: Request) -> Response:
    """Take the next run of a bot whose runner is `pull`, under a lease of a minute; null when there is none."""
    call = await call_of(request, "bots:run")
    context = context_of(request)
    ref = call.id("bot_id")
    bot_id = None if ref is None else (await context.db.read(asking.get_bot, call.project_id, ref_of(ref))).id
    wait_s = call.fields.integer("wait_seconds", 0, 30) or 0
    loop = asyncio.get_running_loop()
    until = loop.time() + wait_s
    owner = f"key:{call.caller.key_id}"
    while True:
        started = None
        if await context.db.read(outside.is_waiting, call.project_id, bot_id, context.now()):
            started = await context.db.write(
                outside.claim, call.project_id, bot_id, owner, context.now(), is_halted=_is_halted(request)
            )
        if started is not None or loop.time() >= until:
            return json_answer({"run": None if started is None else run_schemas.claimed(started)})
        await asyncio.sleep(min(_LOOK_S, max(0.0, until - loop.time())))


@router.post(
    "/v1/bot/runs/heartbeat",
    **described("beatBotRun", answer=(200, run_schemas.BeatBody), body=run_schemas.Beat, errors=(404, 409)),
)
async def beat_run(request: Request) -> Response:
    """Say that a run goes on, what it has cost so far, and what there is to log."""
    hold, fields, _ = await _held_by(request)
    context = context_of(request)
    until, is_cancelled = await context.db.write(outside.beat, hold, fields, context.now())
    return json_answer(run_schemas.beat(until, is_cancelled=is_cancelled))


@router.post(
    "/v1/bot/runs/finish",
    **described("finishBotRun", answer=(200, run_schemas.RunBody), body=run_schemas.FinishBotRun, errors=(404, 409)),
)
async def finish_run(request: Request) -> Response:
    """End a run that was claimed, or that was handed over with a token of its own."""
    hold, fields, body = await _held_by(request)
    context = context_of(request)
    run = await context.db.write(outside.finish, hold, fields, body, context.now())
    await executor_of(request).has_ended(run)
    log.info("bot_run.finished", project_id=run.project_id, run_id=run.id, status=run.status)
    return json_answer({"run": run_schemas.log(run)})


async def _held_by(request: Request) -> tuple[Hold, Fields, dict[str, Any]]:
    """Whose run it is: of whoever has its one-run token, or of a project with a key and the token of its lease."""
    header = header_of(request, b"authorization")
    token = None if header is None else bearer_token(header).decode("latin-1")
    own = None
    if token is not None:
        own = await context_of(request).db.read(run_store.run_by_token, starting.token_hash(token))
    if own is not None:
        body = await _object(request)
        return Hold(str(body.get("run_id") or ""), token=token), Fields(body), body
    call = await call_of(request, "bots:run")
    lease_token = call.fields.integer("lease_token", 0, 2**31)
    run_id = call.text_id("run_id")
    if lease_token is None:
        raise MissingField("lease_token")
    return Hold(run_id, call.project_id, lease_token), call.fields, dict(call.body)


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await read_body(request, MAX_BODY_BYTES))
    except orjson.JSONDecodeError as error:
        raise InvalidBody from error
    if not isinstance(body, dict):
        raise InvalidBody
    return body
