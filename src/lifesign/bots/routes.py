"""HTTP of what people define: bots, schedules, subscribers, settings. Runs are in `run_routes`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import MissingScope
from lifesign.bots import asking, bodies, project_settings, rules, schedules, schemas, service, store, timing
from lifesign.bots.bodies import Fields
from lifesign.bots.calls import Call, Paging, call_of, next_cursor, paging_of, ref_of
from lifesign.bots.providers import Providers
from lifesign.bots.records import Bot, Member
from lifesign.bots.rules import InvalidField
from lifesign.http.answers import json_answer
from lifesign.http.context import context_of
from lifesign.http.describe import Schema, operation

log = structlog.get_logger("lifesign.bots")

router = APIRouter(tags=["Bots"])

_MAX_SCHEDULES = 1000


def described(operation_id: str, **told: Any) -> dict[str, Any]:  # Any: as `operation` takes them
    """As `operation`, for a route of this API."""
    errors = {400, 429, *told.pop("errors", ())}
    return operation(operation_id, envelope=schemas.ENVELOPE, errors=sorted(errors), **told)


def in_query(*names: str, required: Sequence[str] = ("project_id",)) -> tuple[Schema, ...]:
    """Query parameters."""
    numbers = {"page", "per_page", "limit", "days"}
    return tuple(
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": {"type": "integer", "minimum": 1} if name in numbers else {"type": "string"},
        }
        for name in names
    )


_PAGES = ("page", "per_page", "limit", "cursor")
_BOT = in_query("project_id", "bot_id", required=("project_id", "bot_id"))
_SCHEDULE = in_query("project_id", "bot_id", "heartbeat_id", required=("project_id", "bot_id", "heartbeat_id"))


# Bots ---------------------------------------------------------------------------------------------------------------
@router.post("/v1/bot/create", **described("createBot", answer=(200, schemas.BotBody), body=schemas.NewBot))
async def create_bot(request: Request) -> Response:
    """Make a bot."""
    call = await call_of(request, "bots:write")
    made = await context_of(request).db.write(service.create_bot, call.ask, call.fields)
    log.info("bot.created", project_id=call.project_id, bot_id=made.id, key_id=call.caller.key_id)
    return json_answer({"bot": schemas.bot(made, _new_secret(call, None, made))})


def _new_secret(call: Call, before: Bot | None, after: Bot) -> str | None:
    """The secret of a runner, in the answer to the call that had it made."""
    sent = Fields(call.fields.raw("lifesign") or {}).raw("runner")
    if not isinstance(sent, dict) or "secret" in sent or "secret" not in after.options.runner:
        return None
    if before is not None and before.options.runner.get("secret") == after.options.runner["secret"]:
        return None
    return service.runner_secret(call.ask.box, after)


@router.get("/v1/bot/read", **described("readBot", answer=(200, schemas.BotBody), parameters=_BOT, errors=(404,)))
async def read_bot(request: Request) -> Response:
    """Read a bot."""
    call = await call_of(request, "bots:read")
    found = await context_of(request).db.read(asking.get_bot, call.project_id, call.bot_ref())
    return json_answer({"bot": schemas.bot(found)})


@router.get(
    "/v1/bot/readall",
    **described("listBots", answer=(200, schemas.BotListBody), parameters=in_query("project_id", *_PAGES)),
)
async def list_bots(request: Request) -> Response:
    """List the bots of a project, newest first."""
    call = await call_of(request, "bots:read")
    paging = paging_of(call, per_page=10)
    found, total = await context_of(request).db.read(_bots_page, call.project_id, paging)
    return listed("bots", found, paging, total, key=lambda each: str(each.number), show=schemas.bot)


def _bots_page(conn: Connection, project_id: str, paging: Paging) -> tuple[list[Bot], int]:
    before = None if paging.after is None else bodies.integer_in(paging.after)
    if paging.after is not None and before is None:
        raise InvalidField("cursor", "is not a cursor of this list")
    found = store.list_bots(conn, project_id, limit=paging.limit + 1, offset=paging.offset, before=before)
    return found, store.count_bots(conn, project_id)


def listed(
    name: str, rows: Sequence[Any], paging: Paging, total: int, *, key: Callable[[Any], str], show: Callable[[Any], Any]
) -> Response:
    """A page of a list, of which one row more than fits was fetched. Any: rows of whatever list."""
    body: dict[str, Any] = {name: [show(each) for each in rows[: paging.limit]]}
    page = paging.page or 1
    body["pagination"] = schemas.pagination(page, paging.limit, total)
    if paging.page is None and len(rows) > paging.limit:
        body["next_cursor"] = next_cursor(key(rows[paging.limit - 1]))
    return json_answer(body)


@router.put(
    "/v1/bot/update",
    **described("updateBot", answer=(200, schemas.BotChangesBody), body=schemas.BotUpdate, errors=(404,)),
)
async def update_bot(request: Request) -> Response:
    """Change a bot; the answer holds what changed."""
    call = await call_of(request, "bots:write")
    before, after = await context_of(request).db.write(service.update_bot, call.ask, call.bot_ref(), call.fields)
    log.info("bot.updated", project_id=call.project_id, bot_id=after.id, key_id=call.caller.key_id)
    return json_answer({"bot": schemas.bot_changes(before, after, _new_secret(call, before, after))})


@router.post(
    "/v1/bot/reset", **described("resetBot", answer=(200, schemas.DoneBody), body=schemas.BotRef, errors=(404,))
)
async def reset_bot(request: Request) -> Response:
    """Forget what was said in earlier runs; schedules and logs stay."""
    call = await call_of(request, "bots:write")
    await context_of(request).db.write(service.reset_bot, call.ask, call.bot_ref())
    return json_answer(schemas.deleted("Bot memory reset"))


@router.delete(
    "/v1/bot/delete", **described("deleteBot", answer=(200, schemas.DoneBody), parameters=_BOT, errors=(404,))
)
async def delete_bot(request: Request) -> Response:
    """Remove a bot with its schedules and logs; its runs are cancelled."""
    call = await call_of(request, "bots:write")
    ref = call.bot_ref()
    bot_id = await context_of(request).db.write(service.delete_bot, call.ask, ref)
    log.info("bot.deleted", project_id=call.project_id, bot_id=bot_id, key_id=call.caller.key_id)
    return json_answer(schemas.deleted("Bot deleted"))


# Schedules ----------------------------------------------------------------------------------------------------------
@router.post(
    "/v1/bot/heartbeat/configure",
    **described("configureHeartbeat", answer=(200, schemas.HeartbeatBody), body=schemas.Configuration, errors=(404,)),
)
async def configure_heartbeat(request: Request) -> Response:
    """Create a schedule, or update the one of the same bot, member and prompt."""
    call = await call_of(request, "bots:write")
    found = await context_of(request).db.write(schedules.configure, call.ask, call.bot_ref(), call.fields)
    log.info(
        "bot_schedule.configured",
        project_id=call.project_id,
        schedule_id=found.schedule.id,
        prompt_hash=store.prompt_hash(found.schedule.prompt)[:16],
        key_id=call.caller.key_id,
    )
    return json_answer({"heartbeat": schemas.heartbeat(found)})


@router.get(
    "/v1/bot/heartbeat/readall",
    **described(
        "listBotHeartbeats",
        answer=(200, schemas.HeartbeatListBody),
        parameters=in_query("project_id", "bot_id", "member_id", "limit", "cursor", required=("project_id", "bot_id")),
        errors=(404,),
    ),
)
async def list_heartbeats(request: Request) -> Response:
    """List the schedules of a bot in the order in which they were made."""
    call = await call_of(request, "bots:read")
    ref, member = call.bot_ref(), call.id("member_id")
    paging = paging_of(call, per_page=_MAX_SCHEDULES, most=_MAX_SCHEDULES)
    found = await context_of(request).db.read(
        schedules.list_schedules,
        call.project_id,
        ref,
        member=None if member is None else ref_of(member),
        limit=paging.limit + 1,
        after=paging.after or "",
        now=call.now,
    )
    body: dict[str, Any] = {"heartbeats": [schemas.heartbeat(each) for each in found[: paging.limit]]}
    if len(found) > paging.limit:
        body["next_cursor"] = next_cursor(found[paging.limit - 1].schedule.id)
    return json_answer(body)


@router.get(
    "/v1/bot/heartbeat/read",
    **described("getBotHeartbeat", answer=(200, schemas.HeartbeatBody), parameters=_SCHEDULE, errors=(404,)),
)
async def read_heartbeat(request: Request) -> Response:
    """Read a schedule, with the times of its next runs."""
    call = await call_of(request, "bots:read")
    ref, schedule_id = call.bot_ref(), call.text_id("heartbeat_id")
    found = await context_of(request).db.read(schedules.read_schedule, call.project_id, ref, schedule_id, call.now)
    return json_answer({"heartbeat": schemas.heartbeat(found, is_whole=True)})


@router.post(
    "/v1/bot/heartbeat/enable",
    **described("enableHeartbeat", answer=(200, schemas.HeartbeatBody), body=schemas.HeartbeatRef, errors=(404,)),
)
async def enable_heartbeat(request: Request) -> Response:
    """Let a schedule run; one that was paused begins anew."""
    return await _switched(request, is_enabled=True)


@router.post(
    "/v1/bot/heartbeat/disable",
    **described("disableHeartbeat", answer=(200, schemas.HeartbeatBody), body=schemas.HeartbeatRef, errors=(404,)),
)
async def disable_heartbeat(request: Request) -> Response:
    """Let a schedule rest; a run that is going on finishes."""
    return await _switched(request, is_enabled=False)


async def _switched(request: Request, *, is_enabled: bool) -> Response:
    call = await call_of(request, "bots:write")
    ref, schedule_id = call.bot_ref(), call.text_id("heartbeat_id")
    found = await context_of(request).db.write(schedules.set_enabled, call.ask, ref, schedule_id, is_enabled=is_enabled)
    log.info(
        "bot_schedule.switched",
        project_id=call.project_id,
        schedule_id=found.schedule.id,
        is_enabled=is_enabled,
        key_id=call.caller.key_id,
    )
    return json_answer({"heartbeat": schemas.heartbeat(found)})


@router.delete(
    "/v1/bot/heartbeat/delete",
    **described("deleteBotHeartbeat", answer=(200, schemas.DoneBody), parameters=_SCHEDULE, errors=(404,)),
)
async def delete_heartbeat(request: Request) -> Response:
    """Remove a schedule; its runs are cancelled, its logs stay."""
    call = await call_of(request, "bots:write")
    ref, schedule_id = call.bot_ref(), call.text_id("heartbeat_id")
    await context_of(request).db.write(schedules.delete_schedule, call.ask, ref, schedule_id)
    log.info("bot_schedule.deleted", project_id=call.project_id, schedule_id=schedule_id, key_id=call.caller.key_id)
    return json_answer(schemas.deleted("Heartbeat deleted"))


@router.post(
    "/v1/bot/heartbeat/preview",
    **described("previewHeartbeat", answer=(200, schemas.PreviewBody), body=schemas.PreviewFields),
)
async def preview_heartbeat(request: Request) -> Response:
    """Tell when a schedule would run; nothing is stored."""
    call = await call_of(request, "bots:read")
    settings = await context_of(request).db.read(store.settings_of, call.project_id)
    wanted = bodies.timing_of(call.fields, None, call.now)
    project_settings.require_floor(rules.PLANS[settings.plan], wanted, call.now)
    count = call.fields.integer("count", 1, 100) or 10
    found = timing.slots_after(wanted, bodies.after_of(call.fields, call.now), count)
    return json_answer({"slots": schemas.slots(wanted.timezone, found)})


# Subscribers --------------------------------------------------------------------------------------------------------
@router.get(
    "/v1/bot/subscriber/readall",
    **described(
        "listSubscribers", answer=(200, schemas.SubscriberListBody), parameters=in_query("project_id", *_PAGES)
    ),
)
async def list_subscribers(request: Request) -> Response:
    """List the subscribers of a project, newest first."""
    call = await call_of(request, "bots:read")
    paging = paging_of(call, per_page=10)
    found, total = await context_of(request).db.read(_members_page, call.project_id, paging)
    return listed("subscribers", found, paging, total, key=lambda each: str(each.id), show=schemas.subscriber)


def _members_page(conn: Connection, project_id: str, paging: Paging) -> tuple[list[Member], int]:
    found = store.list_members(conn, project_id, limit=paging.limit + 1, offset=paging.offset, before=paging.after)
    return found, store.count_members(conn, project_id)


@router.post(
    "/v1/bot/subscriber/create",
    **described("createSubscriber", answer=(200, schemas.SubscriberBody), body=schemas.NewSubscriber),
)
async def create_subscriber(request: Request) -> Response:
    """Make a subscriber."""
    call = await call_of(request, "bots:write")
    made = await context_of(request).db.write(schedules.create_member, call.ask, call.fields)
    return json_answer({"subscriber": schemas.subscriber(made)})


# Settings -----------------------------------------------------------------------------------------------------------
@router.get(
    "/v1/bot/settings",
    **described("readBotSettings", answer=(200, schemas.SettingsBody), parameters=in_query("project_id")),
)
async def read_settings(request: Request) -> Response:
    """Read what holds for all bots of a project."""
    call = await call_of(request, "bots:read")
    found = await context_of(request).db.read(store.settings_of, call.project_id)
    return json_answer({"settings": schemas.settings(found, _on_server(request, call))})


@router.put(
    "/v1/bot/settings",
    **described("changeBotSettings", answer=(200, schemas.SettingsBody), body=schemas.SettingsChange),
)
async def change_settings(request: Request) -> Response:
    """Change what holds for all bots of a project; what is absent stays."""
    call = await call_of(request, "bots:read")
    needed = "bots:admin" if any(name in call.fields for name in bodies.ADMIN_SETTINGS) else "bots:write"
    others = any(name in call.body for name in _WRITE_SETTINGS)
    for scope in {needed, *({"bots:write"} if others else ())}:
        if not call.caller.allows(scope):
            raise MissingScope([scope])
    found = await context_of(request).db.write(project_settings.change_settings, call.ask, call.fields)
    log.info("bot_settings.changed", project_id=call.project_id, key_id=call.caller.key_id)
    return json_answer({"settings": schemas.settings(found, _on_server(request, call))})


def _on_server(request: Request, call: Call) -> Sequence[Mapping[str, Any]]:
    """Providers of the operator that the project may use."""
    providers: Providers = request.app.state.providers
    return providers.shown_to(call.project_id)


_WRITE_SETTINGS = ("default_model", "providers", "mcp_servers", "budget_period", "billing_timezone", "notify_channels")
