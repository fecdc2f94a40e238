"""HTTP of policies and incidents."""

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.service import caller_of
from lifesign.channels import service as channels
from lifesign.channels.schemas import shown_notification
from lifesign.faults import Fault, InvalidInput
from lifesign.http.answers import json_answer, no_content
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.describe import FORCE, PAGING, operation
from lifesign.http.paging import is_id, page_body, page_of, query_flag, query_text
from lifesign.incidents import bodies, policies, schemas, service
from lifesign.incidents.policies import PolicyUsers
from lifesign.incidents.rules import Incident, Plan
from lifesign.incidents.service import tuning_of

router = APIRouter(tags=["Policies"])
incident_router = APIRouter(tags=["Incidents"])

_STATUSES = ("open", "resolved")


@router.post(
    "/v1/policies",
    **operation(
        "createPolicy",
        answer=(201, schemas.ShownPolicy),
        body=bodies.NewPolicy,
        examples=bodies.NEW_POLICIES,
        links={"id=id": ("getPolicy", "updatePolicy", "deletePolicy")},
    ),
)
async def create_policy(request: Request) -> Response:
    """Make a policy: the steps to take when a heartbeat fires."""
    caller = await caller_of(request, "policies:write")
    body = await read_model(request, bodies.NewPolicy)
    context = context_of(request)
    plan = Plan(bodies.steps_of(body.steps), body.repeatLastStep)
    policy = await context.db.write(
        policies.create_policy, caller.project_id, name=body.name, plan=plan, origin=body.origin, now=context.now()
    )
    return json_answer(schemas.shown_policy(policy), 201)


@router.get(
    "/v1/policies", **operation("listPolicies", answer=(200, schemas.PolicyList), parameters=PAGING, errors=(400,))
)
async def list_policies(request: Request) -> Response:
    """List the policies of the project."""
    caller = await caller_of(request, "policies:read")
    page = page_of(request, is_id("pol"))
    rows = await context_of(request).db.read(
        policies.list_policies, caller.project_id, limit=page.limit + 1, after=page.after
    )
    return json_answer(page_body("policies", rows, page, key=lambda row: row.id, show=schemas.shown_policy))


@router.get("/v1/policies/{id}", **operation("getPolicy", answer=(200, schemas.ShownPolicy), errors=(404,)))
async def get_policy(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Read a policy."""
    caller = await caller_of(request, "policies:read")
    return json_answer(
        schemas.shown_policy(await context_of(request).db.read(policies.get_policy, caller.project_id, id))
    )


@router.patch(
    "/v1/policies/{id}",
    **operation("updatePolicy", answer=(200, schemas.ShownPolicy), body=bodies.PolicyChanges, errors=(404,)),
)
async def update_policy(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Change a policy; escalations that are running go on by the new one."""
    caller = await caller_of(request, "policies:write")
    context = context_of(request)
    await context.db.read(policies.get_policy, caller.project_id, id)
    body = await read_model(request, bodies.PolicyChanges)
    policy = await context.db.write(
        policies.update_policy,
        caller.project_id,
        id,
        name=body.name,
        steps=bodies.steps_of(body.steps) if "steps" in body.given() else None,
        repeat_last_step=body.repeatLastStep,
        tuning=tuning_of(context.settings),
        now=context.now(),
    )
    return json_answer(schemas.shown_policy(policy))


@router.delete(
    "/v1/policies/{id}", **operation("deletePolicy", answer=(204, None), parameters=(FORCE,), errors=(400, 404, 409))
)
async def delete_policy(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Delete a policy; `force=true` detaches the heartbeats that use it and ends their escalations."""
    caller = await caller_of(request, "policies:write")
    context = context_of(request)
    await context.db.read(policies.get_policy, caller.project_id, id)
    force = query_flag(request, "force")
    users_of: PolicyUsers = request.app.state.policy_users
    await context.db.write(
        policies.delete_policy, caller.project_id, id, users_of, force=force, key_id=caller.key_id, now=context.now()
    )
    return no_content()


@incident_router.get(
    "/v1/incidents",
    **operation(
        "listIncidents",
        answer=(200, schemas.IncidentList),
        parameters=(
            *PAGING,
            {"name": "status", "in": "query", "schema": {"type": "string", "enum": list(_STATUSES)}},
            {"name": "heartbeat", "in": "query", "description": "Id of a heartbeat.", "schema": {"type": "string"}},
        ),
        errors=(400,),
    ),
)
async def list_incidents(request: Request) -> Response:
    """List the incidents of the project, newest first."""
    caller = await caller_of(request, "heartbeats:read")
    page = page_of(request, is_id("inc"))
    status = request.query_params.get("status")
    if status is not None and status not in _STATUSES:
        raise InvalidInput(Fault("status", "must be open or resolved", status[:100], has_value=True))
    rows = await context_of(request).db.read(
        service.list_incidents,
        caller.project_id,
        limit=page.limit + 1,
        before=page.after,
        status=status,
        heartbeat_id=query_text(request, "heartbeat"),
    )
    return json_answer(page_body("incidents", rows, page, key=lambda row: row.id, show=schemas.shown_incident))


@incident_router.get(
    "/v1/incidents/{id}", **operation("getIncident", answer=(200, schemas.IncidentWithLog), errors=(404,))
)
async def get_incident(request: Request, id: str) -> Response:  # noqa: A002 - the parameter's name on the wire
    """Read an incident with every message about it and every attempt to deliver those."""
    caller = await caller_of(request, "heartbeats:read")
    incident, log = await context_of(request).db.read(_with_log, caller.project_id, id)
    with_errors = caller.allows("channels:write")
    shown = [shown_notification(row, attempts, with_errors=with_errors) for row, attempts in log]
    return json_answer(schemas.shown_incident(incident) | {"notifications": shown})


def _with_log(conn: Connection, project_id: str, incident_id: str) -> tuple[Incident, channels.DeliveryLog]:
    incident = service.get_incident(conn, project_id, incident_id)
    return incident, channels.delivery_log(conn, incident_id)
