"""Policies: made, changed, deleted; and what that means for escalations that are running.

Everything here runs in the caller's transaction.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import Connection

from lifesign.channels import service as channels
from lifesign.channels.rules import User
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.faults import Fault, InvalidInput
from lifesign.ids import new_id
from lifesign.incidents import attention, rules, store
from lifesign.incidents.rules import Incident, Plan, Policy, PolicyInUse, PolicyNotFound, Step, Subject, Tuning

MAX_USERS_SHOWN = 100


class PolicyUsers(Protocol):
    """The slice whose objects name policies; deleting one asks it first."""

    def policy_users(self, conn: Connection, project_id: str, policy_id: str) -> list[tuple[str, str]]:
        """Id and name of each heartbeat that uses the policy."""
        ...

    def detach_policy(self, conn: Connection, project_id: str, policy_id: str, *, key_id: str, now: EpochMs) -> None:
        """Make them forget it; their running escalations end."""
        ...


def get_policy(conn: Connection, project_id: str, policy_id: str) -> Policy:
    """One policy. Raises PolicyNotFound."""
    found = store.policy_by_id(conn, project_id, policy_id)
    if found is None:
        raise PolicyNotFound
    return found


find_policy = store.policy_by_id
list_policies = store.policies_of
names_naming_channel = store.names_naming_channel


def is_policy(conn: Connection, project_id: str, policy_id: str) -> bool:
    """Whether the project has this policy; it stays until the transaction ends."""
    return store.keep_policy(conn, project_id, policy_id)


def create_policy(
    conn: Connection, project_id: str, *, name: str, plan: Plan, now: EpochMs, origin: str | None = None
) -> Policy:
    """A new policy. Raises InvalidInput naming each channel the project does not have."""
    _check_channels(conn, project_id, plan.steps)
    policy = Policy(new_id("pol", now), project_id, name, plan, now, None, origin)
    store.insert_policy(conn, policy)
    return policy


def update_policy(
    conn: Connection,
    project_id: str,
    policy_id: str,
    *,
    name: str | None,
    steps: tuple[Step, ...] | None,
    repeat_last_step: bool | None,
    tuning: Tuning,
    now: EpochMs,
) -> Policy:
    """Change a policy; running escalations go on by the new one. Raises PolicyNotFound, InvalidInput."""
    policy = store.policy_by_id(conn, project_id, policy_id, lock=True)
    if policy is None:
        raise PolicyNotFound
    if steps is not None:
        _check_channels(conn, project_id, steps)
    plan = Plan(
        policy.plan.steps if steps is None else steps,
        policy.plan.repeat_last_step if repeat_last_step is None else repeat_last_step,
    )
    wanted = replace(policy, name=policy.name if name is None else name, plan=plan)
    if wanted == policy:
        return policy
    changed = replace(wanted, updated_at=now)
    store.save_policy(conn, changed)
    if plan != policy.plan:
        _replan(conn, store.lock_open_of_policy(conn, policy_id), plan, tuning=tuning, now=now)
    return changed


def _check_channels(conn: Connection, project_id: str, steps: Sequence[Step]) -> None:
    named = [
        (f"steps[{n}].channels[{m}]", channel)
        for n, step in enumerate(steps)
        for m, channel in enumerate(step.channels)
    ]
    known = channels.known_channels(conn, project_id, {channel for _, channel in named})
    faults = [
        Fault(field, "unknown channel", channel, has_value=True) for field, channel in named if channel not in known
    ]
    for n, step in enumerate(steps):
        repeated = [(m, channel) for m, channel in enumerate(step.channels) if channel in step.channels[:m]]
        faults += [Fault(f"steps[{n}].channels[{m}]", "repeated channel", each, has_value=True) for m, each in repeated]
    if faults:
        raise InvalidInput(*faults)


def _replan(conn: Connection, running: Sequence[Incident], plan: Plan, *, tuning: Tuning, now: EpochMs) -> None:
    """Point open incidents at a changed plan: steps that have run stay run, the next one is due by its new wait."""
    timers: dict[str, tuple[str, EpochMs]] = {}
    finished: list[Event] = []
    changes: dict[str, dict[str, Any]] = {}
    # Under a hold nothing is due: the plan is looked up when it ends.
    running = [each for each in running if each.holds is None]
    for incident in running:
        since = incident.opened_at if incident.last_step_at is None else incident.last_step_at
        due = rules.due_after(plan, steps_run=incident.steps_run, since=since, min_repeat_ms=tuning.min_repeat_ms)
        if due is not None:
            timers[incident.id] = (incident.project_id, max(now, due))
        elif incident.escalation == "running":
            metadata = {"incident": incident.id, "steps": len(plan.steps)}
            finished.append(Event(incident.project_id, incident.heartbeat_id, "escalation_finished", metadata))
        changes[incident.id] = {"escalation": "done" if due is None else "running"}
    store.clear_timers(conn, [incident.id for incident in running if incident.id not in timers])
    store.set_timers(conn, timers)
    store.save_incidents(conn, changes)
    events.record(conn, finished, now)
    attention.await_reaction(conn, [each for each in running if each.id not in timers], now, tuning)
    attention.await_no_reaction(conn, [each for each in running if each.id in timers])
    wake_after_commit(conn, "escalate")


def change_policy(conn: Connection, incident_id: str, subject: Subject, *, tuning: Tuning, now: EpochMs) -> None:
    """The firing heartbeat `subject` has another policy now, or none: its escalation goes on there, or ends."""
    incident = store.lock_open(conn, incident_id)
    if incident is None:
        return
    plan = store.plans(conn, [subject.policy_id]).get(subject.policy_id) if subject.policy_id else None
    store.save_incidents(conn, {incident_id: {"policy_id": subject.policy_id}})
    if incident.holds is not None:
        return
    if plan is not None:
        _replan(conn, [incident], plan, tuning=tuning, now=now)
        return
    store.clear_timers(conn, [incident_id])
    store.save_incidents(conn, {incident_id: {"escalation": "done"}})
    if subject.own_channels:
        attention.await_reaction(conn, [incident], now, tuning)
    else:
        attention.mark_unattended(conn, [(subject, incident)], "no_policy", now)


def delete_policy(
    conn: Connection, project_id: str, policy_id: str, users_of: PolicyUsers, *, force: bool, key_id: str, now: EpochMs
) -> None:
    """Remove a policy. Raises PolicyNotFound; PolicyInUse unless `force`."""
    if store.policy_by_id(conn, project_id, policy_id, lock=True) is None:
        raise PolicyNotFound
    users = users_of.policy_users(conn, project_id, policy_id)
    if users and not force:
        raise PolicyInUse(users[:MAX_USERS_SHOWN], len(users))
    users_of.detach_policy(conn, project_id, policy_id, key_id=key_id, now=now)
    store.delete_policy(conn, policy_id)


def policies_naming_channel(conn: Connection, project_id: str, channel_id: str) -> list[str]:
    """Ids of the policies with a step that tells the channel."""
    return [policy.id for policy in store.policies_naming_channel(conn, project_id, channel_id)]


class PoliciesAsChannelUsers:
    """Policies name channels in their steps."""

    def channel_users(self, conn: Connection, project_id: str, channel_id: str) -> list[User]:
        """The policies that tell the channel."""
        return [
            User("policy", policy.id, policy.name)
            for policy in store.policies_naming_channel(conn, project_id, channel_id)
        ]

    def detach_channel(self, conn: Connection, project_id: str, channel_id: str, *, key_id: str, now: EpochMs) -> None:
        """Take the channel out of every step; a step left without channels stays, runs and tells nobody."""
        del key_id, now
        for policy in store.policies_naming_channel(conn, project_id, channel_id):
            steps = tuple(
                replace(step, channels=tuple(c for c in step.channels if c != channel_id)) for step in policy.plan.steps
            )
            store.save_policy(conn, replace(policy, plan=replace(policy.plan, steps=steps)))
