"""A recovery from its limit to the new keys, for the API and for the page, which only answer in other ways."""

from typing import cast

import structlog
from starlette.requests import Request

from lifesign.auth.service import KeyPair, Keyring
from lifesign.http.context import context_of
from lifesign.http.peer import network_of
from lifesign.projects import rules, service
from lifesign.projects.rules import Codes, CodesSwitchedOff, RecoveryFieldsRequired, WrongRecoveryCode
from lifesign.projects.service import Limits, Project

log = structlog.get_logger("lifesign.projects")


def keyring_of(request: Request) -> Keyring:
    """Who knows the callers of this node."""
    return cast("Keyring", request.app.state.keyring)


def codes_of(request: Request) -> Codes | None:
    """What makes codes on this node; None when they are switched off."""
    return cast("Codes | None", request.app.state.codes)


def require_codes(request: Request) -> Codes:
    """What checks recovery codes. Raises CodesSwitchedOff."""
    codes = codes_of(request)
    if codes is None:
        raise CodesSwitchedOff("recovery")
    return codes


async def recovered(request: Request, codes: Codes, *, project_id: str, code: str) -> tuple[Project, KeyPair]:
    """A project and its new keys; those before them are revoked, on every node.

    Raises RecoveryFieldsRequired, RateLimited, WrongRecoveryCode, ProjectNotFound, NotSandbox, in this order.
    """
    project_id = project_id.strip()
    if not project_id or not code.strip():
        raise RecoveryFieldsRequired
    context = context_of(request)
    limits = Limits.of(context.settings)
    await context.db.write(service.pass_recovery, network=network_of(request), limits=limits, now=context.now())
    # Before anything is looked up: whoever has no code learns nothing of which projects there are.
    if not rules.is_same_code(code, codes.recovery(project_id)):
        raise WrongRecoveryCode
    project, pair = await context.db.write(service.recover, project_id, context.now())
    keyring_of(request).forget()
    log.info("project.recovered", project_id=project.id)
    return project, pair
