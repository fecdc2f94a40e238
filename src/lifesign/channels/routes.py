"""HTTP of channels, their tests, and the delivery log."""

from typing import get_args

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.service import caller_of
from lifesign.channels import bodies, outbox, schemas, service, store, trial
from lifesign.channels import config as configs
from lifesign.channels.delivery import courier_of
from lifesign.channels.limits import Limits
from lifesign.channels.rules import Status
from lifesign.channels.service import ChannelUsers, Kit
from lifesign.channels.store import Attempt, Notification
from lifesign.channels.trial import Answer
from lifesign.faults import Fault, InvalidInput
from lifesign.http.answers import json_answer, no_content
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.describe import FORCE, PAGING, operation
from lifesign.http.paging import Page, is_id, page_body, page_of, query_flag, query_text

router = APIRouter(tags=["Channels"])
log_router = APIRouter(tags=["Incidents"])

_STATUSES: tuple[str, ...] = get_args(Status)


def _kit(request: Request) -> Kit:
    return courier_of(request).kit


@router.post(
    "/v1/channels",
    **operation(
        "createChannel",
        answer=(201, schemas.ShownChannel),
        body=bodies.NewChannel,
        examples=bodies.NEW_CHANNELS,
        links={"id=id": ("getChannel", "updateChannel", "testChannel", "deleteChannel")},
    ),
)
async def create_channel(request: Request) -> Response:
    """Make a channel. A webhook without a secret gets one, shown in this answer only."""
    caller = await caller_of(request, "channels:write")
    body = await read_model(request, bodies.NewChannel, secret=["config"])
    context, kit = context_of(request), _kit(request)
    config = configs.validate(body.type, body.config, kit.guard)
    channel, made_secret = await context.db.write(
        service.create_channel,
        kit,
        caller.project_id,
        name=body.name,
        channel_type=body.type,
        config=config,
        origin=body.origin,
        now=context.now(),
    )
    return json_answer(schemas.shown(channel, kit, made_secret), 201)


@router.get(
    "/v1/channels", **operation("listChannels", answer=(200, schemas.ChannelList), parameters=PAGING, errors=(400,))
)
async def list_channels(request: Request) -> Response:
    """List the channels of the project."""
    caller = await caller_of(request, "channels:read")
    page = page_of(request, is_id("ch"))
    kit = _kit(request)
    rows = await context_of(request).db.read(
        service.list_channels, caller.project_id, limit=page.limit + 1, after=page.after
    )
    return json_answer(
        page_body("channels", rows, page, key=lambda row: row.id, show=lambda row: schemas.shown(row, kit))
    )


@router.get("/v1/channels/{id}", **operation("getChannel", answer=(200, schemas.ShownChannel), errors=(404,)))
async def get_channel(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Read a channel; its secrets are masked."""
    caller = await caller_of(request, "channels:read")
    channel = await context_of(request).db.read(service.get_channel, caller.project_id, id)
    return json_answer(schemas.shown(channel, _kit(request)))


@router.patch(
    "/v1/channels/{id}",
    **operation("updateChannel", answer=(200, schemas.ShownChannel), body=bodies.ChannelChanges, errors=(404,)),
)
async def update_channel(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Change a channel. A changed webhook secret signs along with the new one for 24 hours."""
    caller = await caller_of(request, "channels:write")
    context, kit = context_of(request), _kit(request)
    await context.db.read(service.get_channel, caller.project_id, id)
    body = await read_model(request, bodies.ChannelChanges, secret=["config"])
    channel, made_secret = await context.db.write(
        service.update_channel,
        kit,
        caller.project_id,
        id,
        name=body.name,
        channel_type=body.type,
        config=body.config,
        now=context.now(),
    )
    return json_answer(schemas.shown(channel, kit, made_secret))


@router.post(
    "/v1/channels/{id}/compare",
    **operation("compareChannel", answer=(200, schemas.Comparison), body=bodies.ComparedChannel, errors=(404,)),
)
async def compare_channel(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Say whether a channel has these settings already, its secrets included; nothing changes."""
    caller = await caller_of(request, "channels:write")
    context, kit = context_of(request), _kit(request)
    await context.db.read(service.get_channel, caller.project_id, id)
    body = await read_model(request, bodies.ComparedChannel, secret=["config"])
    is_equal = await context.db.read(
        service.has_config, kit, caller.project_id, id, channel_type=body.type, config=body.config
    )
    return json_answer({"equal": is_equal})


@router.delete(
    "/v1/channels/{id}", **operation("deleteChannel", answer=(204, None), parameters=(FORCE,), errors=(400, 404, 409))
)
async def delete_channel(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Delete a channel; `force=true` takes it out of everything that uses it."""
    caller = await caller_of(request, "channels:write")
    context = context_of(request)
    await context.db.read(service.get_channel, caller.project_id, id)
    force = query_flag(request, "force")
    users_of: list[ChannelUsers] = request.app.state.channel_users
    await context.db.write(
        service.delete_channel, caller.project_id, id, users_of, force=force, key_id=caller.key_id, now=context.now()
    )
    return no_content()


@router.post("/v1/channels/{id}/test", **operation("testChannel", answer=(200, schemas.TestAnswer), errors=(404, 429)))
async def test_channel(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Send a test message through the channel, once, and say what became of it."""
    caller = await caller_of(request, "channels:write")
    tried = await trial.run(
        courier_of(request),
        caller.project_id,
        id,
        node_id=request.app.state.node_id,
        limits=Limits.of(context_of(request).settings),
    )
    if tried.wait_ms is not None:
        return json_answer({"ok": False, "message": f"rate limited, try again in {-(-tried.wait_ms // 1000)} s"})
    faults = [_fault_line(each, each.fault) for each in tried.answers if each.fault is not None]
    return json_answer({"ok": False, "message": "; ".join(faults)} if faults else {"ok": True})


def _fault_line(answer: Answer, fault: str) -> str:
    line = fault[: schemas.MAX_SHOWN_ERROR]
    return f"{answer.dest}: {line}" if answer.dest else line


@log_router.get(
    "/v1/notifications",
    **operation(
        "listNotifications",
        answer=(200, schemas.NotificationList),
        parameters=(
            *PAGING,
            {"name": "status", "in": "query", "schema": {"type": "string", "enum": list(_STATUSES)}},
            {"name": "channel", "in": "query", "schema": {"type": "string"}},
        ),
        errors=(400,),
    ),
)
async def list_notifications(request: Request) -> Response:
    """List messages of the project, newest first, each with its attempts."""
    caller = await caller_of(request, "heartbeats:read")
    page = page_of(request, is_id("ntf"))
    status = request.query_params.get("status")
    if status is not None and status not in _STATUSES:
        raise InvalidInput(Fault("status", f"must be one of {', '.join(_STATUSES)}", status[:100], has_value=True))
    channel = query_text(request, "channel")
    rows, tries = await context_of(request).db.read(_log_page, caller.project_id, page, status, channel)
    with_errors = caller.allows("channels:write")
    return json_answer(
        page_body(
            "notifications",
            rows,
            page,
            key=lambda row: row.id,
            show=lambda row: schemas.shown_notification(row, tries.get(row.id, ()), with_errors=with_errors),
        )
    )


@log_router.post(
    "/v1/notifications/{id}/retry",
    **operation("retryNotification", answer=(200, schemas.ShownNotification), errors=(404,), refuses_states=True),
)
async def retry_notification(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Send a dead message again: at once, and for another 24 hours."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    row = await context.db.write(outbox.retry_dead, caller.project_id, id, context.now())
    tries = await context.db.read(store.attempts_of, [row.id])
    return json_answer(
        schemas.shown_notification(row, tries.get(row.id, ()), with_errors=caller.allows("channels:write"))
    )


def _log_page(
    conn: Connection, project_id: str, page: Page, status: str | None, channel: str | None
) -> tuple[list[Notification], dict[str, list[Attempt]]]:
    rows = store.notifications_of(
        conn, project_id, limit=page.limit + 1, before=page.after, status=status, channel=channel
    )
    return rows, store.attempts_of(conn, [row.id for row in rows])
