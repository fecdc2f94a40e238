"""SQL of the tables of people: who they are, where they belong, how they sign in.

`users`, `memberships`, `user_sessions`, `password_links`, `sign_in_failures`, `identities` and `spent_states`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import (
    identities,
    memberships,
    password_links,
    projects,
    sign_in_failures,
    spent_states,
    user_sessions,
    users,
)
from lifesign.db.sql import insert_if_new
from lifesign.web.rules import Membership, Role

U = users.c
M = memberships.c
S = user_sessions.c
L = password_links.c
F = sign_in_failures.c
N = identities.c
T = spent_states.c


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may sign in; password_hash: None until they chose a password."""

    id: str
    email: str
    password_hash: str | None
    created_at: EpochMs


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that somebody is signed in with."""

    id: str
    user_id: str
    browser: str
    shows_project_id: str | None
    created_at: EpochMs
    expires_at: EpochMs


@dataclass(frozen=True, slots=True)
class Link:
    """A link that lets a password be chosen. user_id: None for the one that makes the owner."""

    user_id: str | None
    expires_at: EpochMs | None
    used_at: EpochMs | None


class Failures(NamedTuple):
    """How many wrong passwords count against somebody, and when the latest was."""

    times: int
    last_at: EpochMs | None


_USER = (U.id, U.email, U.password_hash, U.created_at)
_SESSION = (S.id, S.user_id, S.browser, S.shows_project_id, S.created_at, S.expires_at)


# Users --------------------------------------------------------------------------------------------------------------
def insert_user(conn: Connection, user: User) -> bool:
    """A new user; False when the address is taken."""
    row = {"id": user.id, "email": user.email, "password_hash": user.password_hash, "created_at": user.created_at}
    return insert_if_new(conn, users, row, unique=("email",))


def user_by_email(conn: Connection, email: str) -> User | None:
    """The user with this address."""
    row = conn.execute(select(*_USER).where(U.email == email)).first()
    return None if row is None else User(*row)


def user_by_id(conn: Connection, user_id: str) -> User | None:
    """The user with this id."""
    row = conn.execute(select(*_USER).where(U.id == user_id)).first()
    return None if row is None else User(*row)


def emails_of(conn: Connection, user_ids: Iterable[str]) -> dict[str, str]:
    """The addresses of those of `user_ids` that are users."""
    query = select(U.id, U.email).where(U.id.in_(list(user_ids)))
    return {row.id: row.email for row in conn.execute(query)}


def users_of(conn: Connection, *, limit: int, after: str | None) -> list[User]:
    """Everybody, in the order in which they were added."""
    query = select(*_USER)
    if after is not None:
        query = query.where(U.id > after)
    return [User(*row) for row in conn.execute(query.order_by(U.id).limit(limit))]


def has_users(conn: Connection) -> bool:
    """Whether anybody has an account."""
    return conn.execute(select(U.id).limit(1)).first() is not None


def set_password(conn: Connection, user_id: str, password_hash: str) -> None:
    """What is kept of somebody's new password."""
    conn.execute(update(users).where(U.id == user_id).values(password_hash=password_hash))


# Memberships --------------------------------------------------------------------------------------------------------
def set_membership(conn: Connection, user_id: str, project_id: str, role: Role, now: EpochMs) -> None:
    """What somebody may do in a project from now on."""
    row = {"user_id": user_id, "project_id": project_id, "role": role, "created_at": now}
    if not insert_if_new(conn, memberships, row, unique=("user_id", "project_id")):
        is_it = (M.user_id == user_id) & (M.project_id == project_id)
        conn.execute(update(memberships).where(is_it).values(role=role))


def memberships_of(conn: Connection, user_ids: Iterable[str]) -> dict[str, list[Membership]]:
    """The projects of each user that still exist, by name."""
    query = (
        select(M.user_id, M.project_id, func.coalesce(projects.c.title, projects.c.name), M.role)
        .join(projects, projects.c.id == M.project_id)
        .where(M.user_id.in_(list(user_ids)), projects.c.deleted_at.is_(None))
        .order_by(projects.c.name, M.project_id)
    )
    found: dict[str, list[Membership]] = {}
    for user_id, *membership in conn.execute(query):
        found.setdefault(user_id, []).append(Membership(*membership))
    return found


# Sessions -----------------------------------------------------------------------------------------------------------
def insert_session(conn: Connection, session: Session, token_hash: bytes) -> None:
    """Somebody signed in."""
    conn.execute(
        user_sessions.insert().values(
            id=session.id,
            hash=token_hash,
            user_id=session.user_id,
            browser=session.browser,
            shows_project_id=session.shows_project_id,
            created_at=session.created_at,
            expires_at=session.expires_at,
        )
    )


def session_by_hash(conn: Connection, token_hash: bytes, now: EpochMs) -> tuple[Session, User] | None:
    """The session whose cookie has this hash, and whose it is; None when it is over."""
    query = select(*_SESSION, *_USER).join(users, U.id == S.user_id).where(S.hash == token_hash, S.expires_at > now)
    row = conn.execute(query).first()
    return None if row is None else (Session(*row[: len(_SESSION)]), User(*row[len(_SESSION) :]))


def sessions_of(conn: Connection, user_id: str, now: EpochMs) -> list[Session]:
    """Where somebody is signed in, latest first. Index: ix_user_sessions_user."""
    query = select(*_SESSION).where(S.user_id == user_id, S.expires_at > now).order_by(S.id.desc())
    return [Session(*row) for row in conn.execute(query)]


def delete_session(conn: Connection, user_id: str, session_id: str) -> bool:
    """End a session; False when this person has none with this id."""
    return conn.execute(delete(user_sessions).where(S.user_id == user_id, S.id == session_id)).rowcount > 0


def delete_sessions(conn: Connection, user_id: str, *, but: str | None) -> None:
    """End the sessions of somebody, or all but one."""
    are_theirs = S.user_id == user_id
    conn.execute(delete(user_sessions).where(are_theirs if but is None else are_theirs & (S.id != but)))


def delete_expired_sessions(conn: Connection, now: EpochMs, limit: int) -> None:
    """Forget sessions that are over. Index: ix_user_sessions_expires_at."""
    over = select(S.id).where(S.expires_at <= now).order_by(S.expires_at).limit(limit)
    ids = list(conn.scalars(over))
    if ids:
        conn.execute(delete(user_sessions).where(S.id.in_(ids)))


def set_shown_project(conn: Connection, session_id: str, project_id: str) -> None:
    """Which project the pages of a session show."""
    conn.execute(update(user_sessions).where(S.id == session_id).values(shows_project_id=project_id))


# Links --------------------------------------------------------------------------------------------------------------
def insert_link(
    conn: Connection, token_hash: bytes, *, user_id: str | None, expires_at: EpochMs | None, now: EpochMs
) -> None:
    """A link that can be used once."""
    conn.execute(
        password_links.insert().values(hash=token_hash, user_id=user_id, created_at=now, expires_at=expires_at)
    )


def link_by_hash(conn: Connection, token_hash: bytes) -> Link | None:
    """The link whose token has this hash, used or not."""
    row = conn.execute(select(L.user_id, L.expires_at, L.used_at).where(L.hash == token_hash)).first()
    return None if row is None else Link(*row)


def use_link(conn: Connection, token_hash: bytes, now: EpochMs) -> bool:
    """Use a link up; False when somebody else just did."""
    is_it = (L.hash == token_hash) & L.used_at.is_(None)
    return conn.execute(update(password_links).where(is_it).values(used_at=now)).rowcount > 0


def delete_links(conn: Connection, user_id: str) -> None:
    """Forget the links of somebody. Index: ix_password_links_user."""
    conn.execute(delete(password_links).where(L.user_id == user_id))


def has_setup_link(conn: Connection) -> bool:
    """Whether the link that makes the owner was made. Index: ix_password_links_user."""
    return conn.execute(select(L.hash).where(L.user_id.is_(None)).limit(1)).first() is not None


# Wrong passwords ----------------------------------------------------------------------------------------------------
def failures_of(conn: Connection, subjects: Sequence[str], since: EpochMs) -> dict[str, Failures]:
    """What counts against each of `subjects` since then. Index: ix_sign_in_failures_subject."""
    query = (
        select(F.subject, func.count(), func.max(F.at)).where(F.subject.in_(subjects), F.at > since).group_by(F.subject)
    )
    return {subject: Failures(count, last_at) for subject, count, last_at in conn.execute(query)}


def insert_failures(conn: Connection, subjects: Iterable[str], now: EpochMs) -> None:
    """Count a try against each of `subjects`."""
    rows: list[dict[str, Any]] = [{"subject": subject, "at": now} for subject in subjects]
    conn.execute(sign_in_failures.insert(), rows)


def delete_failures(conn: Connection, subject: str) -> None:
    """Nothing counts against `subject` any more. Index: ix_sign_in_failures_subject."""
    conn.execute(delete(sign_in_failures).where(F.subject == subject))


def delete_last_failure(conn: Connection, subject: str) -> None:
    """What was counted last does not count. Index: ix_sign_in_failures_subject."""
    latest = select(func.max(F.seq)).where(F.subject == subject).scalar_subquery()
    conn.execute(delete(sign_in_failures).where(F.seq == latest))


def delete_old_failures(conn: Connection, before: EpochMs, limit: int) -> None:
    """Forget what counts no longer. Index: ix_sign_in_failures_at."""
    seqs = list(conn.scalars(select(F.seq).where(F.at <= before).order_by(F.at).limit(limit)))
    if seqs:
        conn.execute(delete(sign_in_failures).where(F.seq.in_(seqs)))


# OpenID Connect -----------------------------------------------------------------------------------------------------
def user_by_identity(conn: Connection, issuer: str, subject: str) -> User | None:
    """Who this is here."""
    query = select(*_USER).join(identities, N.user_id == U.id).where(N.issuer == issuer, N.subject == subject)
    row = conn.execute(query).first()
    return None if row is None else User(*row)


def insert_identity(conn: Connection, issuer: str, subject: str, *, user_id: str, now: EpochMs) -> bool:
    """Remember who this is here; False when the user is somebody else there already. Index: uq_identities_user."""
    row = {"issuer": issuer, "subject": subject, "user_id": user_id, "created_at": now}
    return insert_if_new(conn, identities, row, unique=("user_id", "issuer"))


def delete_identities(conn: Connection, user_id: str) -> None:
    """Forget who somebody is elsewhere. Index: uq_identities_user."""
    conn.execute(delete(identities).where(N.user_id == user_id))


def insert_spent_state(conn: Connection, state_hash: bytes, now: EpochMs) -> bool:
    """A way back was taken; False when it had been before."""
    return insert_if_new(conn, spent_states, {"hash": state_hash, "at": now}, unique=("hash",))


def delete_old_states(conn: Connection, before: EpochMs, limit: int) -> None:
    """Forget ways back that are too old to be taken again. Index: ix_spent_states_at."""
    hashes = list(conn.scalars(select(T.hash).where(T.at <= before).order_by(T.at).limit(limit)))
    if hashes:
        conn.execute(delete(spent_states).where(T.hash.in_(hashes)))
