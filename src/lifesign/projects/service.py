"""Projects: made, found, given back to their owners, ended."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlalchemy import Connection

from lifesign.auth import service as auth
from lifesign.auth.service import KeyPair
from lifesign.clock import EpochMs
from lifesign.db.sql import one_at_a_time
from lifesign.ids import new_id
from lifesign.projects import rules, store
from lifesign.projects.rules import (
    DEFAULT_PROJECT,
    KEPT_AFTER_EXPIRY_MS,
    LIMITERS,
    SANDBOX,
    WINDOW_MS,
    Codes,
    Identity,
    Limiter,
    NameClaimed,
    NotSandbox,
    ProjectAmbiguous,
    ProjectNotFound,
    ProjectProtected,
    RateLimited,
    WrongUpgradeCode,
)
from lifesign.projects.store import Project as Project  # noqa: PLC0414 - what is answered here has this type
from lifesign.secretfile import kept_secret
from lifesign.settings import Settings

# Of those with one name, when somebody has to choose.
_NAMED_AT_MOST = 10
_SECRET_FILE = "signup_upgrade_secret"  # noqa: S105 - the name of a file
_MIN_SECRET = 32
_TRIES = 8

names = store.project_names_of
lock = store.lock_project
fallback_channels = store.fallback_channels
set_fallback_channel = store.set_fallback_channel
list_all = store.list_projects


def codes_of(settings: Settings) -> Codes | None:
    """What makes the codes of this installation; None when they are switched off. Raises SecretKeyUnusable.

    The secret is the setting, else what the file in the data directory says, which is made once.
    """
    if settings.signup_upgrade_secret is None:
        path = settings.data_dir / _SECRET_FILE
        return Codes(kept_secret(path, lambda: secrets.token_hex(32), min_characters=_MIN_SECRET))
    secret = settings.signup_upgrade_secret.get_secret_value()
    return None if secret.strip().lower() == "off" else Codes(secret)


def ensure_default(conn: Connection, now: EpochMs) -> str:
    """The id of the default project, which is made when missing."""
    found = store.project_id(conn, DEFAULT_PROJECT)
    if found is not None:
        return found
    made = new_id("prj", now)
    store.insert_project(conn, made, DEFAULT_PROJECT, now)
    return made


def is_first_start(conn: Connection, project_id: str, now: EpochMs) -> bool:
    """True once: for the first server that starts on this project."""
    return store.mark_started(conn, project_id, now)


def id_of(conn: Connection, ref: str) -> str:
    """The id of the project with this id, or else this name. Raises ProjectNotFound, ProjectAmbiguous."""
    if "\x00" in ref:  # No project is called so, and PostgreSQL cannot even be asked for it.
        raise ProjectNotFound(ref)
    found = store.project_id(conn, ref)
    if found is not None:
        return found
    called_so = store.ids_of_title(conn, ref, _NAMED_AT_MOST)
    if len(called_so) > 1:
        raise ProjectAmbiguous(ref, called_so)
    if not called_so:
        raise ProjectNotFound(ref)
    return called_so[0]


def project(conn: Connection, project_id: str) -> Project:
    """The project with this id. Raises ProjectNotFound."""
    found = store.project(conn, project_id)
    if found is None:
        raise ProjectNotFound(project_id)
    return found


def claimed(conn: Connection, identity: Identity) -> Project | None:
    """The self-service project that has this name."""
    return store.claimed_project(conn, SANDBOX, identity)


# Making -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Limits:
    """How many calls may come in an hour; 0: any number."""

    mint: int
    mint_total: int
    recover: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """What the operator set."""
        return cls(settings.mint_limit_per_hour, settings.mint_limit_total_per_hour, settings.recover_limit_per_hour)


@dataclass(frozen=True, slots=True)
class Order:
    """A project that somebody wants. expires_at: None: it stays. identity: the name it shall be found by, if any."""

    title: str
    quota_spans: int
    expires_at: EpochMs | None = None
    tenant_id: str = SANDBOX
    identity: Identity | None = None


def mint(conn: Connection, order: Order, *, network: str, limits: Limits, now: EpochMs) -> tuple[Project, KeyPair]:
    """A new project that somebody made for themselves. Raises RateLimited, NameClaimed, and then nothing counts."""
    if limits.mint or limits.mint_total:
        one_at_a_time(conn, "projects.mint")
        _pass(conn, "mint", {network: limits.mint, None: limits.mint_total}, now)
        store.insert_call(conn, "mint", network, now)
    return create(conn, order, now)


def create(conn: Connection, order: Order, now: EpochMs) -> tuple[Project, KeyPair]:
    """A new project with both its keys. Raises NameClaimed."""
    project = _inserted(conn, order, now)
    if order.identity is not None and not store.claim_name(conn, order.tenant_id, order.identity, project.id):
        raise NameClaimed
    return project, auth.create_pair(conn, project.id, plan=project.plan, expires_at=project.expires_at, now=now)


def _inserted(conn: Connection, order: Order, now: EpochMs) -> Project:
    for _ in range(_TRIES):
        project = Project(
            id=rules.project_id(order.title, secrets.token_hex(4)),
            tenant_id=order.tenant_id,
            title=order.title,
            plan=None if order.expires_at is None else SANDBOX,
            expires_at=order.expires_at,
            quota_spans=order.quota_spans,
            created_at=now,
        )
        if store.insert_titled(conn, project):
            return project
    raise AssertionError("no free project id")  # pragma: no cover - one in 2**32, eight times in a row


def _pass(conn: Connection, limiter: Limiter, limits: dict[str | None, int], now: EpochMs) -> None:
    """Let a call through that is within its limits, each of a network or (None) of all. Raises RateLimited."""
    since = EpochMs(now - WINDOW_MS)
    waits = [
        rules.wait_ms(store.nth_latest_call(conn, limiter, limit, network=network, since=since, now=now), now)
        for network, limit in limits.items()
        if limit
    ]
    wait = max(waits, default=0)
    if wait:
        raise RateLimited(limiter, wait)


def pass_limited(conn: Connection, limiter: Limiter, network: str, *, limit: int, now: EpochMs) -> None:
    """Count a call that a network may make `limit` times within an hour (0: any number). Raises RateLimited.

    It counts if the transaction is committed.
    """
    if limit:
        one_at_a_time(conn, f"projects.{limiter}/{network}")
        _pass(conn, limiter, {network: limit}, now)
        store.insert_call(conn, limiter, network, now)


# Keeping and giving back --------------------------------------------------------------------------------------------
def graduate(conn: Connection, project_id: str) -> Project | None:
    """Let a sandbox stay for good; None when it is gone. The caller of this tells its Keyring to `forget`."""
    project = store.locked_project(conn, project_id)
    return None if project is None else _set_life(conn, project, None, None)[0]


def upgrade(conn: Connection, project_id: str, *, codes: Codes, code: str) -> tuple[Project, int]:
    """Let a sandbox stay for good if the code is right; with how many keys. As often as one likes.

    Raises ProjectNotFound, NotSandbox, WrongUpgradeCode.
    """
    project = _locked(conn, project_id)
    if project.tenant_id != SANDBOX:
        raise NotSandbox
    if not rules.is_same_code(code, codes.upgrade(project_id)):
        raise WrongUpgradeCode
    return _set_life(conn, project, None, None)


def pass_recovery(conn: Connection, *, network: str, limits: Limits, now: EpochMs) -> None:
    """Count a try to recover a project, whatever becomes of it. Raises RateLimited."""
    pass_limited(conn, "recover", network, limit=limits.recover, now=now)


def recover(conn: Connection, project_id: str, now: EpochMs) -> tuple[Project, KeyPair]:
    """Take back every key of a self-service project and make a new pair. Who asks has shown the code.

    The caller of this tells its Keyring to `forget`. Raises ProjectNotFound, NotSandbox.
    """
    project = _locked(conn, project_id)
    if project.tenant_id != SANDBOX:
        raise NotSandbox
    auth.revoke_keys(conn, [project_id], now)
    return project, auth.create_pair(conn, project_id, plan=project.plan, expires_at=project.expires_at, now=now)


def extend(conn: Connection, ref: str, days: int, now: EpochMs) -> Project:
    """Let a sandbox stay for longer. Raises ProjectNotFound, ProjectAmbiguous, ProjectProtected."""
    project = _locked(conn, id_of(conn, ref))
    if project.expires_at is None:
        raise ProjectProtected("this project is permanent: it does not expire")
    return _set_life(conn, project, project.plan, rules.extended(project.expires_at, days, now))[0]


def _locked(conn: Connection, project_id: str) -> Project:
    # No project is called so, and PostgreSQL cannot even be asked for it.
    project = None if "\x00" in project_id else store.locked_project(conn, project_id)
    if project is None:
        raise ProjectNotFound(project_id)
    return project


def _set_life(conn: Connection, project: Project, plan: str | None, expires_at: EpochMs | None) -> tuple[Project, int]:
    store.set_life(conn, project.id, plan, expires_at)
    return replace(project, plan=plan, expires_at=expires_at), auth.set_life(conn, project.id, plan, expires_at)


# Ends ---------------------------------------------------------------------------------------------------------------
def delete(conn: Connection, ref: str, now: EpochMs) -> str:
    """End a project and all its keys, for everybody at once; the loop `prune` erases what it had. Its id.

    The caller of this tells its Keyring to `forget`. Raises ProjectNotFound, ProjectAmbiguous, ProjectProtected.
    """
    project_id = id_of(conn, ref)
    if project_id == store.project_id(conn, DEFAULT_PROJECT):
        raise ProjectProtected("the project default cannot be deleted")
    _end(conn, [project_id], now)
    return project_id


class Over(NamedTuple):
    """Sandboxes that expired long ago, and projects that are deleted and not yet forgotten."""

    expired: list[str]
    ended: list[str]


def over(conn: Connection, now: EpochMs, *, ended_before: EpochMs, limit: int) -> Over:
    """Projects whose time is over, the longest ago first."""
    expired = store.expired_before(conn, EpochMs(now - KEPT_AFTER_EXPIRY_MS), limit)
    return Over(expired, store.deleted_before(conn, ended_before, limit))


def end_expired(conn: Connection, project_ids: Sequence[str], now: EpochMs) -> None:
    """End those of these sandboxes that are still over: somebody may have extended one this moment."""
    _end(conn, store.lock_expired(conn, project_ids, EpochMs(now - KEPT_AFTER_EXPIRY_MS)), now)


def _end(conn: Connection, project_ids: Sequence[str], now: EpochMs) -> None:
    store.mark_deleted(conn, project_ids, now)
    auth.revoke_keys(conn, project_ids, now)


forget = store.delete_projects


def forget_calls(conn: Connection, now: EpochMs, limit: int) -> int:
    """Calls that no limit counts any more; how many went."""
    before = EpochMs(now - WINDOW_MS)
    return next((gone for each in LIMITERS if (gone := store.delete_calls(conn, each, before, limit))), 0)
