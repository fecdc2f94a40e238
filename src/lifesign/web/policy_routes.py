"""HTTP of policies: the ladder of steps, what it would do now, and who uses it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.channels import service as channels
from lifesign.channels.delivery import courier_of
from lifesign.channels.schemas import shown as shown_channel
from lifesign.channels.service import Kit
from lifesign.clock import EpochMs
from lifesign.faults import InvalidInput, invalid
from lifesign.heartbeats import service as heartbeats
from lifesign.http.context import context_of
from lifesign.http.paging import is_id
from lifesign.http.validation import validate
from lifesign.incidents import bodies, policies, rules
from lifesign.incidents.policies import PolicyUsers
from lifesign.incidents.rules import Foreseen, Plan, Policy
from lifesign.incidents.service import tuning_of
from lifesign.web import channel_forms, policy_forms
from lifesign.web.access import form_for, person_for, person_of
from lifesign.web.pages import page
from lifesign.web.policy_forms import TypedPolicy
from lifesign.web.routes import to
from lifesign.web.rules import Person

router = APIRouter(include_in_schema=False)

_ROWS = 50
_CHANNELS = 1000
_USERS = 100

_is_policy = is_id("pol")


class Reachable(NamedTuple):
    """A channel that a step may tell. target: where its messages go, secrets masked."""

    id: str
    name: str
    type: str
    target: str
    is_broken: bool


class Listed(NamedTuple):
    """A page of policies, and the names of their channels."""

    policies: Sequence[Policy]
    has_more: bool
    channels: Mapping[str, str]
    uses: Mapping[str, int]


@router.get("/policies")
async def show_all(request: Request) -> Response:
    """Every policy, with its ladder in short."""
    person = await person_of(request)
    after = request.query_params.get("after", "")
    listed: Listed = await context_of(request).db.read(
        _listed, person.shown.project_id, after=after if _is_policy(after) else None
    )
    return page(request, "policies", person, section="/policies", listed=listed)


def _listed(conn: Connection, project_id: str, *, after: str | None) -> Listed:
    found = policies.list_policies(conn, project_id, limit=_ROWS + 1, after=after)
    shown = found[:_ROWS]
    names = {each.id: each.name for each in channels.list_channels(conn, project_id, limit=_CHANNELS, after=None)}
    return Listed(shown, len(found) > _ROWS, names, heartbeats.count_by_policy(conn, project_id))


@router.get("/policies/new")
async def show_new(request: Request) -> Response:
    """The form that makes a policy."""
    person = await person_for(request, "policies:write")
    return await _ladder_page(request, person, TypedPolicy(), {})


@router.post("/policies/new")
async def make(request: Request) -> Response:
    """Make a policy, or show the form after one of its other buttons."""
    person, form = await form_for(request, "policies:write")
    typed = policy_forms.typed_of(form.fields)
    deed = form.get("do") or "keep"
    if deed != "keep":
        return await _ladder_page(request, person, policy_forms.after(typed, deed), {})
    context = context_of(request)
    try:
        body = validate(bodies.NewPolicy, policy_forms.values_of(typed))
        made: Policy = await context.db.write(
            policies.create_policy,
            person.shown.project_id,
            name=body.name,
            plan=Plan(bodies.steps_of(body.steps), body.repeatLastStep),
            now=context.now(),
        )
    except InvalidInput as error:
        return await _ladder_page(request, person, typed, policy_forms.faults_of(error))
    return to(f"/policies/{made.id}")


@router.get("/policies/{policy_id}")
async def show(request: Request, policy_id: str) -> Response:
    """One policy: its ladder, which whoever may change it can change here, and what it would do now."""
    person = await person_of(request)
    policy = await context_of(request).db.read(policies.get_policy, person.shown.project_id, policy_id)
    return await _ladder_page(request, person, policy_forms.shown(policy), {}, policy=policy)


@router.post("/policies/{policy_id}")
async def change(request: Request, policy_id: str) -> Response:
    """Change a policy, or show the form after one of its other buttons."""
    person, form = await form_for(request, "policies:write")
    context = context_of(request)
    policy: Policy = await context.db.read(policies.get_policy, person.shown.project_id, policy_id)
    typed = policy_forms.typed_of(form.fields)
    deed = form.get("do") or "keep"
    if deed != "keep":
        return await _ladder_page(request, person, policy_forms.after(typed, deed), {}, policy=policy)
    try:
        body = validate(bodies.PolicyChanges, policy_forms.values_of(typed))
        await context.db.write(
            policies.update_policy,
            person.shown.project_id,
            policy.id,
            name=body.name,
            steps=bodies.steps_of(body.steps),
            repeat_last_step=body.repeatLastStep,
            tuning=tuning_of(context.settings),
            now=context.now(),
        )
    except InvalidInput as error:
        return await _ladder_page(request, person, typed, policy_forms.faults_of(error), policy=policy)
    return to(f"/policies/{policy.id}")


@router.post("/policies/{policy_id}/delete")
async def delete(request: Request, policy_id: str) -> Response:
    """Delete a policy, when its name was typed; heartbeats that use it tell nobody from then on."""
    person, form = await form_for(request, "policies:write")
    context = context_of(request)
    policy: Policy = await context.db.read(policies.get_policy, person.shown.project_id, policy_id)
    if form.get("name") != policy.name.strip():
        raise invalid("name", "is not the name of this policy, so nothing was deleted")
    await context.db.write(
        policies.delete_policy,
        person.shown.project_id,
        policy.id,
        cast("PolicyUsers", request.app.state.policy_users),
        force=True,
        key_id=person.user_id,
        now=context.now(),
    )
    return to("/policies")


class Surroundings(NamedTuple):
    """What stands around the ladder: where messages can go, and who uses the policy."""

    channels: Sequence[Reachable]
    users: Sequence[tuple[str, str]]


async def _ladder_page(
    request: Request,
    person: Person,
    typed: TypedPolicy,
    faults: Mapping[str, str],
    *,
    policy: Policy | None = None,
) -> Response:
    context = context_of(request)
    around: Surroundings = await context.db.read(
        _around,
        person.shown.project_id,
        courier_of(request).kit,
        policy_id=None if policy is None else policy.id,
    )
    reachable = {each.id: each for each in around.channels}
    now = context.now()
    return page(
        request,
        "policy",
        person,
        400 if faults else 200,
        section="/policies",
        policy=policy,
        typed=typed,
        faults=faults,
        reachable=reachable,
        users=around.users[:_USERS],
        user_count=len(around.users),
        fires_at=now,
        foreseen=_foreseen(request, typed, now),
        may_change=person.caller.allows("policies:write"),
        max_steps=bodies.MAX_STEPS,
    )


def _around(conn: Connection, project_id: str, kit: Kit, *, policy_id: str | None) -> Surroundings:
    found = channels.list_channels(conn, project_id, limit=_CHANNELS, after=None)
    reachable = [
        Reachable(
            each.id,
            each.name,
            each.type,
            channel_forms.target_of(each.type, shown_channel(each, kit)["config"]),
            each.broken_reason is not None,
        )
        for each in found
    ]
    users = [] if policy_id is None else heartbeats.names_using_policy(conn, project_id, policy_id)
    return Surroundings(reachable, users)


def _foreseen(request: Request, typed: TypedPolicy, now: EpochMs) -> list[Foreseen]:
    """What the ladder would do now; nothing while something of it is wrong."""
    context = context_of(request)
    values = policy_forms.values_of(typed)
    # What cannot be told apart by time is foreseen all the same: a name or channels may still be missing.
    steps = [{**each, "channels": each["channels"] or ["none"]} for each in values["steps"]]
    try:
        body = validate(bodies.NewPolicy, values | {"name": typed.name or "none", "steps": steps})
    except InvalidInput:
        return []
    plan = Plan(bodies.steps_of(body.steps), body.repeatLastStep)
    min_repeat_ms = tuning_of(context.settings).min_repeat_ms
    return rules.foreseen(plan, now, min_repeat_ms=min_repeat_ms, most=len(plan.steps) + _REPEATS)


_REPEATS = 3
