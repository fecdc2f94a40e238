"""HTTP of the operator's commands about bots of all projects, which only the operator's way in reaches."""

from collections.abc import Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lifesign.auth.service import operator
from lifesign.bots import stopping
from lifesign.bots.calls import watchers_of
from lifesign.bots.watching import Watchers
from lifesign.http.answers import json_answer
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.fields import Body, optional

log = structlog.get_logger("lifesign.bots")


class Stop(Body):
    """How to stop."""

    reason: str = optional("For those who ask why nothing runs.")
    cancel_running: bool = True


async def stop_all(request: Request) -> Response:
    """Let no run of any project begin, and cancel those that go on."""
    body = await read_model(request, Stop)
    reason = body.reason[:500] if "reason" in body.given() else None
    context = context_of(request)
    count = await context.db.write(
        stopping.stop_server, _operators_watchers(request), reason, cancels=body.cancel_running, now=context.now()
    )
    log.warning("bots.all_stopped", cancelled=count)
    return json_answer({"stopped": 1, "cancelled": count})


async def resume_all(request: Request) -> Response:
    """Let runs begin again, where the project itself did not stop them."""
    context = context_of(request)
    await context.db.write(stopping.resume_server, _operators_watchers(request), context.now())
    log.info("bots.all_resumed")
    return json_answer({"stopped": 0})


def _operators_watchers(request: Request) -> Callable[[str], Watchers]:
    """What keeping the heartbeats of a project needs, by project."""
    return lambda project_id: watchers_of(request, operator(project_id))


routes = [
    Route("/admin/bots/stop", stop_all, methods=["POST"]),
    Route("/admin/bots/resume", resume_all, methods=["POST"]),
]
