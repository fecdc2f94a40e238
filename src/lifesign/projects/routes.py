"""HTTP of self-service projects. Every answer may hold keys or codes, so that none is to be stored on the way."""

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import Caller, KeyUnknown
from lifesign.auth.service import telemetry_caller
from lifesign.http.context import base_url, context_of, header_of
from lifesign.http.ok import NO_STORE, Json, ok_answer, ok_operation, read_object
from lifesign.http.peer import network_of
from lifesign.projects import rules, schemas, service
from lifesign.projects.recovery import codes_of, keyring_of, recovered, require_codes
from lifesign.projects.rules import CodesSwitchedOff, Identity, NotProjectKey
from lifesign.projects.service import Limits, Order
from lifesign.projects.store import Project

log = structlog.get_logger("lifesign.projects")

router = APIRouter(tags=["Projects"])

_MADE = 201


def _answer(body: Json, status: int = 200) -> Response:
    return ok_answer(body, status, NO_STORE)


# Provision ----------------------------------------------------------------------------------------------------------
def _provision_operation() -> Json:
    told = ok_operation(
        "provisionProject",
        answer=(_MADE, schemas.ProvisionedProject),
        body=schemas.NewProvision,
        errors=(409, 429),
        refusals=schemas.PROVISION_REFUSALS,
    )
    told["responses"][200] = {"model": schemas.ResumedProject, "description": schemas.ResumedProject.__doc__}
    # A free name needs no key.
    told["openapi_extra"]["security"] = [{}, {"BearerAuth": []}]
    return told


@router.post("/v1/provision", **_provision_operation())
async def provision(request: Request) -> Response:
    """Make a project under a name, or find it again with one of its keys."""
    naming = schemas.naming_of(await read_object(request))
    found = await context_of(request).db.read(service.claimed, naming.identity)
    if found is None:
        return await _provision_new(request, naming)
    caller = await _caller_of_project(request, found)
    project = await _graduated(request, found)
    shape = schemas.resumed(project, base_url(request), codes_of(request), shows_code=caller.kind == "agent")
    return _answer(schemas.provisioned(shape, project, is_resumed=True))


async def _caller_of_project(request: Request, project: Project) -> Caller:
    """The caller, who has one of the project's two keys. Raises Unauthorized, NotProjectKey."""
    caller = await keyring_of(request).caller(header_of(request, b"authorization"), is_fresh=True)
    if caller.project_id != project.id or caller.kind is None:
        raise NotProjectKey
    return caller


async def _graduated(request: Request, project: Project) -> Project:
    """The project, which stays for good from now on where the server lets it."""
    if project.expires_at is None or not _graduates(request):
        return project
    graduated = await context_of(request).db.write(service.graduate, project.id)
    if graduated is None:
        # Deleted between two statements, and its keys with it.
        raise KeyUnknown
    keyring_of(request).forget()
    log.info("project.upgraded", project_id=project.id, way="provision")
    return graduated


def _graduates(request: Request) -> bool:
    return context_of(request).settings.provision_auto_graduate and codes_of(request) is not None


async def _provision_new(request: Request, naming: schemas.Naming) -> Response:
    project, shape = await _minted(
        request, naming.project_name, identity=naming.identity, stays=_graduates(request), way="provision"
    )
    return _answer(schemas.provisioned(shape, project, is_resumed=False), _MADE)


async def _minted(
    request: Request, title: str, *, identity: Identity | None, stays: bool, way: str
) -> tuple[Project, Json]:
    context = context_of(request)
    settings, now = context.settings, context.now()
    ends_at = None if stays else rules.sandbox_ends_at(settings.sandbox_days, now)
    order = Order(title, settings.quota_spans, ends_at, identity=identity)
    project, pair = await context.db.write(
        service.mint, order, network=network_of(request), limits=Limits.of(settings), now=now
    )
    log.info("project.created", project_id=project.id, tenant_id=project.tenant_id, way=way)
    return project, schemas.minted(project, pair, base_url(request), codes_of(request))


# Sign up, and stay --------------------------------------------------------------------------------------------------
@router.post(
    "/v1/signup",
    **ok_operation(
        "signUp",
        answer=(_MADE, schemas.MintedProject),
        body=schemas.NewSignup,
        is_body_required=False,
        errors=(429,),
        never=(401,),
        refusals=schemas.SIGNUP_REFUSALS,
        security=None,
    ),
)
async def sign_up(request: Request) -> Response:
    """Make a new sandbox, every time; it is there for a while."""
    name = schemas.name_of(await read_object(request, is_required=False), schemas.DEFAULT_NAME)
    _, shape = await _minted(request, name, identity=None, stays=False, way="signup")
    return _answer(shape, _MADE)


@router.post(
    "/v1/signup/upgrade",
    **ok_operation(
        "upgradeProject",
        answer=(200, schemas.UpgradedProject),
        body=schemas.Upgrade,
        refusals=schemas.UPGRADE_REFUSALS,
    ),
)
async def upgrade(request: Request) -> Response:
    """Let a sandbox stay for good, with the code that the server's operator gives out."""
    caller = await telemetry_caller(request, "runs:write")
    codes = codes_of(request)
    if codes is None:
        raise CodesSwitchedOff("upgrade")
    code = schemas.code_of(await read_object(request))
    context = context_of(request)
    project, count = await context.db.write(service.upgrade, caller.project_id, codes=codes, code=code)
    keyring_of(request).forget()
    log.info("project.upgraded", project_id=project.id, way="code")
    return _answer(schemas.upgraded(project, caller, count))


# Recover ------------------------------------------------------------------------------------------------------------
@router.post(
    "/v1/recover",
    **ok_operation(
        "recoverProject",
        answer=(200, schemas.RecoveredProject),
        body=schemas.Recovery,
        errors=(404, 429),
        never=(401,),
        refusals=schemas.RECOVER_REFUSALS,
        security=None,
    ),
)
async def recover(request: Request) -> Response:
    """Get new keys for a project with its recovery code; those before them are revoked."""
    codes = require_codes(request)
    project_id, code = schemas.recovery_of(await read_object(request))
    project, pair = await recovered(request, codes, project_id=project_id, code=code)
    return _answer(schemas.recovered(project, pair, base_url(request)))
