"""HTTP of the operator's commands about projects, which only the operator's way in reaches."""

from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lifesign.faults import Fault, InvalidInput
from lifesign.http.answers import json_answer, no_content
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.paging import page_body, page_of
from lifesign.projects import rules, schemas, service
from lifesign.projects.recovery import codes_of, keyring_of
from lifesign.projects.rules import (
    DEFAULT_TENANT,
    NAME_RULE,
    SANDBOX,
    CodesSwitchedOff,
    NameInvalid,
    ProjectProtected,
)
from lifesign.projects.service import Order, Project

log = structlog.get_logger("lifesign.projects")


async def list_projects(request: Request) -> Response:
    """Every project, in id order."""
    page = page_of(request, lambda key: len(key) > 0 and key.isprintable())
    found = await context_of(request).db.read(service.list_all, limit=page.limit + 1, after=page.after)
    return json_answer(page_body("projects", found, page, key=lambda each: each.id, show=schemas.listed))


async def create_project(request: Request) -> Response:
    """Make a permanent project with both keys."""
    body = await read_model(request, schemas.OrderedProject)
    context = context_of(request)
    tenant = body.tenant if "tenant" in body.given() else DEFAULT_TENANT
    if not rules.is_tenant(tenant):
        raise InvalidInput(
            Fault("tenant", f"must be 1 to 64 of a-z, 0-9, '.', '_' and '-', and not {SANDBOX}", tenant, has_value=True)
        )
    try:
        title = rules.checked_name(body.name, "project_name")
    except NameInvalid as error:
        raise InvalidInput(Fault("name", NAME_RULE)) from error
    quota = body.quotaSpans if "quotaSpans" in body.given() else context.settings.quota_spans
    project, pair = await context.db.write(service.create, Order(title, quota, tenant_id=tenant), context.now())
    log.info("project.created", project_id=project.id, tenant_id=project.tenant_id, way="operator")
    return json_answer({**schemas.listed(project), "producerKey": pair.producer, "agentKey": pair.agent}, 201)


async def extend_project(request: Request) -> Response:
    """Let a sandbox stay for longer."""
    body = await read_model(request, schemas.Extension)
    context = context_of(request)
    project = await context.db.write(service.extend, _ref(request), body.days, context.now())
    keyring_of(request).forget()
    return json_answer(schemas.listed(project))


async def show_upgrade_code(request: Request) -> Response:
    """What lets a sandbox stay for good."""
    project = await context_of(request).db.read(_found, _ref(request))
    if project.tenant_id != SANDBOX:
        raise ProjectProtected(f"only projects of the tenant {SANDBOX} have codes")
    codes = codes_of(request)
    if codes is None:
        raise CodesSwitchedOff("upgrade")
    return json_answer({"id": project.id, "upgradeCode": codes.upgrade(project.id)})


def _found(conn: Connection, ref: str) -> Project:
    return service.project(conn, service.id_of(conn, ref))


async def delete_project(request: Request) -> Response:
    """End a project; what it had is erased in the background."""
    context = context_of(request)
    project_id = await context.db.write(service.delete, _ref(request), context.now())
    keyring_of(request).forget()
    log.info("project.deleted", project_id=project_id, why="operator")
    return no_content()


def _ref(request: Request) -> str:
    return str(request.path_params["id"])


def _route(method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=[method])


# An id or a name, which may hold a slash.
routes = [
    _route("GET", "/admin/projects", list_projects),
    _route("POST", "/admin/projects", create_project),
    _route("DELETE", "/admin/projects/{id:path}", delete_project),
    _route("POST", "/admin/projects/{id:path}/extend", extend_project),
    _route("GET", "/admin/projects/{id:path}/upgrade-code", show_upgrade_code),
]
