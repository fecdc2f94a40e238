"""HTTP of the operator's commands about users, which only the operator's way in reaches."""

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lifesign.auth.rules import Caller
from lifesign.auth.service import OPERATOR
from lifesign.clock import rfc3339
from lifesign.faults import Fault, InvalidInput
from lifesign.http.answers import json_answer, without_absent
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.fields import Body
from lifesign.http.paging import is_id, page_body, page_of
from lifesign.settings import Settings
from lifesign.web import rules, service
from lifesign.web.rules import Role
from lifesign.web.service import Listed

log = structlog.get_logger("lifesign.web")


class NewUser(Body):
    """Somebody to be let into the project that the header names."""

    email: str
    role: Role = Field("editor")


class KnownUser(Body):
    """Somebody with an account."""

    email: str


async def list_users(request: Request) -> Response:
    """Everybody who may sign in."""
    page = page_of(request, is_id("usr"))
    found = await context_of(request).db.read(service.list_users, limit=page.limit + 1, after=page.after)
    return json_answer(page_body("users", found, page, key=lambda each: each.user.id, show=_shown))


async def add_user(request: Request) -> Response:
    """Let somebody in, with a link by which they choose a password."""
    body = await read_model(request, NewUser)
    operator: Caller = request.scope[OPERATOR]
    context = context_of(request)
    listed, token = await context.db.write(
        service.add_user, _email(body.email), project_id=operator.project_id, role=body.role, now=context.now()
    )
    log.info("user.added", user_id=listed.user.id, project_id=operator.project_id, role=body.role)
    return json_answer(without_absent(_shown(listed) | {"link": token and link_of(context.settings, token)}), 201)


async def reset_user(request: Request) -> Response:
    """Sign somebody out everywhere, with a link by which they choose another password."""
    body = await read_model(request, KnownUser)
    context = context_of(request)
    listed, token = await context.db.write(service.reset_user, _email(body.email), context.now())
    log.info("user.reset", user_id=listed.user.id)
    return json_answer(_shown(listed) | {"link": link_of(context.settings, token)})


def link_of(settings: Settings, token: str) -> str:
    """Where somebody chooses a password; only the path, when no address is known."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    own = f"http://{host}:{settings.port}" if settings.port else ""
    return f"{settings.public_url or own}/setup/{token}"


def _email(text: str) -> str:
    email = rules.checked_email(text)
    if email is None:
        raise InvalidInput(
            Fault("email", "must be an e-mail address, such as name@example.org", text[:100], has_value=True)
        )
    return email


def _shown(listed: Listed) -> dict[str, Any]:  # Any: JSON
    return {
        "id": listed.user.id,
        "email": listed.user.email,
        "hasPassword": listed.user.password_hash is not None,
        "projects": [
            {"id": each.project_id, "name": each.project_name, "role": each.role} for each in listed.memberships
        ],
        "createdAt": rfc3339(listed.user.created_at),
    }


def _route(method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=[method])


routes = [
    _route("GET", "/admin/users", list_users),
    _route("POST", "/admin/users", add_user),
    _route("POST", "/admin/users/reset", reset_user),
]
