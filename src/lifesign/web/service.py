"""People: added, invited, signed in and out. Everything here runs in the caller's transaction."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection

from lifesign.audit import service as audit
from lifesign.audit.rules import Actor
from lifesign.auth.rules import token_hash
from lifesign.clock import EpochMs
from lifesign.db.sql import one_at_a_time
from lifesign.faults import invalid
from lifesign.ids import new_id
from lifesign.projects import service as projects
from lifesign.web import oidc, rules, store
from lifesign.web.oidc import Identity
from lifesign.web.rules import (
    LinkUnknown,
    LinkUsed,
    Membership,
    NotAMember,
    Person,
    Role,
    TooManyPasswords,
    UserNotFound,
)
from lifesign.web.store import Failures, Session, User

_TOKEN_BYTES = 32
_FORGOTTEN_AT_ONCE = 200
_BROWSER_CHARACTERS = 200


def _new_token() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


# The first start ----------------------------------------------------------------------------------------------------
def ensure_setup_link(conn: Connection, now: EpochMs) -> str | None:
    """The token of the link that makes the owner, when this is the first start: made here, to be shown once."""
    one_at_a_time(conn, "web.setup")
    if store.has_users(conn) or store.has_setup_link(conn):
        return None
    token = _new_token()
    store.insert_link(conn, token_hash(token), user_id=None, expires_at=None, now=now)
    return token


# Links --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Invitation:
    """What a link is for. user: whose password it sets; None: it makes the owner."""

    user: User | None


def invitation(conn: Connection, token: str, now: EpochMs) -> Invitation:
    """What a link that still works is for. Raises LinkUnknown, LinkUsed."""
    link = store.link_by_hash(conn, token_hash(token))
    if link is None:
        raise LinkUnknown
    # Once anybody has an account, whoever finds the link of the first start in a log must not become owner by it.
    if link.used_at is not None or (link.user_id is None and store.has_users(conn)):
        raise LinkUsed
    if link.expires_at is not None and link.expires_at <= now:
        raise LinkUnknown
    if link.user_id is None:
        return Invitation(None)
    user = store.user_by_id(conn, link.user_id)
    if user is None:
        raise LinkUnknown
    return Invitation(user)


def accept(conn: Connection, token: str, *, email: str | None, password_hash: str, browser: str, now: EpochMs) -> str:
    """Use a link up: the account has this password from now on. The token of a new session.

    email: of the owner that a link of the first start makes. Raises LinkUnknown, LinkUsed.
    """
    one_at_a_time(conn, "web.setup")
    user = invitation(conn, token, now).user
    if not store.use_link(conn, token_hash(token), now):
        raise LinkUsed
    if user is None:
        user = User(new_id("usr", now), email or "", password_hash, now)
        store.insert_user(conn, user)
        store.set_membership(conn, user.id, projects.ensure_default(conn, now), "owner", now)
    else:
        store.set_password(conn, user.id, password_hash)
        store.delete_links(conn, user.id)
        store.delete_sessions(conn, user.id, but=None)
        store.delete_failures(conn, _account(user.email))
    return _open_session(conn, user.id, browser, now)


# Operators ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Listed:
    """A user, and what they may do where."""

    user: User
    memberships: tuple[Membership, ...]


def add_user(conn: Connection, email: str, *, project_id: str, role: Role, now: EpochMs) -> tuple[Listed, str | None]:
    """Let somebody into a project, with an account that is made if need be; the token by which they get a password.

    The token is None for somebody who has one.
    """
    store.insert_user(conn, User(new_id("usr", now), email, None, now))
    user = _user(conn, email)
    store.set_membership(conn, user.id, project_id, role, now)
    token = None if user.password_hash else _invite(conn, user.id, rules.INVITATION_MS, now)
    return _listed(conn, [user])[0], token


def reset_user(conn: Connection, email: str, now: EpochMs) -> tuple[Listed, str]:
    """Sign somebody out everywhere; the token with which they choose a new password. Raises UserNotFound."""
    user = _user(conn, email)
    store.delete_sessions(conn, user.id, but=None)
    store.delete_failures(conn, _account(user.email))
    # Or somebody whose address went to another person could not be let in by an operator.
    store.delete_identities(conn, user.id)
    return _listed(conn, [user])[0], _invite(conn, user.id, rules.RESET_MS, now)


def list_users(conn: Connection, *, limit: int, after: str | None) -> list[Listed]:
    """Everybody who may sign in, in the order in which they were added."""
    return _listed(conn, store.users_of(conn, limit=limit, after=after))


def _listed(conn: Connection, users: Sequence[User]) -> list[Listed]:
    found = store.memberships_of(conn, [user.id for user in users])
    return [Listed(user, tuple(found.get(user.id, ()))) for user in users]


def _user(conn: Connection, email: str) -> User:
    user = store.user_by_email(conn, email)
    if user is None:
        raise UserNotFound(email)
    return user


def _invite(conn: Connection, user_id: str, for_ms: int, now: EpochMs) -> str:
    store.delete_links(conn, user_id)
    token = _new_token()
    store.insert_link(conn, token_hash(token), user_id=user_id, expires_at=EpochMs(now + for_ms), now=now)
    return token


# Signing in ---------------------------------------------------------------------------------------------------------
def begin_sign_in(conn: Connection, email: str, network: str, now: EpochMs) -> User | None:
    """Whose password is to be looked at. Counts as a wrong one until `finish_sign_in` says otherwise.

    Counted before, or many tries at once would all be free. Raises TooManyPasswords.
    """
    subjects = (_account(email), _network(network))
    for subject in sorted(subjects):
        one_at_a_time(conn, f"web.sign_in/{subject}")
    since = EpochMs(now - rules.FAILURES_COUNT_MS)
    counted = store.failures_of(conn, subjects, since)
    wait_ms = max(rules.wait_ms(*counted.get(subject, Failures(0, None)), now) for subject in subjects)
    if wait_ms:
        raise TooManyPasswords(wait_ms)
    store.delete_old_failures(conn, since, _FORGOTTEN_AT_ONCE)
    store.insert_failures(conn, subjects, now)
    return store.user_by_email(conn, email)


def count_no_failure(conn: Connection, email: str, network: str) -> None:
    """The password was right after all: what `begin_sign_in` counted does not count, nor what the account has."""
    store.delete_failures(conn, _account(email))
    store.delete_last_failure(conn, _network(network))


def finish_sign_in(conn: Connection, user: User, network: str, browser: str, now: EpochMs) -> str:
    """The password was right: the token of a new session."""
    count_no_failure(conn, user.email, network)
    store.delete_expired_sessions(conn, now, _FORGOTTEN_AT_ONCE)
    return _open_session(conn, user.id, browser, now)


def _account(email: str) -> str:
    # Of what people type, a hash: some type their password there.
    return f"account/{hashlib.sha256(email.encode()).hexdigest()}"


def _network(network: str) -> str:
    return f"network/{network}"


def _open_session(conn: Connection, user_id: str, browser: str, now: EpochMs) -> str:
    token = _new_token()
    session = Session(
        new_id("ses", now), user_id, browser[:_BROWSER_CHARACTERS], None, now, EpochMs(now + rules.SESSION_MS)
    )
    store.insert_session(conn, session, token_hash(token))
    return token


# OpenID Connect -----------------------------------------------------------------------------------------------------
class Newcomers(NamedTuple):
    """What becomes of those who sign in for the first time and have no account. role: in the default project."""

    are_welcome: bool
    role: Role


def spend_state(conn: Connection, state: str, now: EpochMs) -> None:
    """Take a way back from the provider, which nobody can take again. Raises SignInFailed."""
    store.delete_old_states(conn, EpochMs(now - oidc.ATTEMPT_MS), _FORGOTTEN_AT_ONCE)
    if not store.insert_spent_state(conn, token_hash(state), now):
        raise oidc.spent()


def sign_in_by_identity(
    conn: Connection, issuer: str, identity: Identity, *, newcomers: Newcomers, browser: str, path: str, now: EpochMs
) -> tuple[str, str]:
    """Who this is here, and the token of a new session. Raises SignInFailed.

    Somebody who was here before is known by the subject, whatever their address is by now.
    """
    # Before the owner's account there may be no other: its link would count as used.
    one_at_a_time(conn, "web.setup")
    if not store.has_users(conn):
        raise oidc.too_early()
    user = store.user_by_identity(conn, issuer, identity.subject)
    if user is None:
        user = _introduced(conn, issuer, identity, newcomers=newcomers, now=now)
    memberships = tuple(store.memberships_of(conn, [user.id]).get(user.id, ()))
    if memberships:
        actor = Actor(memberships[0].project_id, user.id, f"user:{user.email}")
        audit.write_down(conn, actor, via="page", method="GET", path=path, now=now)
    store.delete_expired_sessions(conn, now, _FORGOTTEN_AT_ONCE)
    return user.id, _open_session(conn, user.id, browser, now)


def _introduced(conn: Connection, issuer: str, identity: Identity, *, newcomers: Newcomers, now: EpochMs) -> User:
    """The account that somebody has from now on who signs in for the first time."""
    user = store.user_by_email(conn, identity.email)
    if user is None:
        if not newcomers.are_welcome:
            raise oidc.without_account(identity.email)
        user = User(new_id("usr", now), identity.email, None, now)
        store.insert_user(conn, user)
        store.set_membership(conn, user.id, projects.ensure_default(conn, now), newcomers.role, now)
    if not store.insert_identity(conn, issuer, identity.subject, user_id=user.id, now=now):
        raise oidc.taken(identity.email)
    return user


# Sessions -----------------------------------------------------------------------------------------------------------
def person(conn: Connection, token: str, now: EpochMs) -> Person | None:
    """Who is signed in with this token; None: nobody. Raises NoProject."""
    found = store.session_by_hash(conn, token_hash(token), now)
    if found is None:
        return None
    session, user = found
    memberships = tuple(store.memberships_of(conn, [user.id]).get(user.id, ()))
    shown = rules.shown_membership(memberships, session.shows_project_id)
    return Person(user.id, user.email, session.id, rules.csrf_of(token), shown, memberships)


def sign_out(conn: Connection, token: str, now: EpochMs) -> None:
    """End the session of this token, if there is one."""
    found = store.session_by_hash(conn, token_hash(token), now)
    if found is not None:
        store.delete_session(conn, found[1].id, found[0].id)


def show_project(conn: Connection, person: Person, project_id: str) -> None:
    """Let the pages of this session show another project. Raises NotAMember."""
    if all(each.project_id != project_id for each in person.memberships):
        raise NotAMember
    store.set_shown_project(conn, person.session_id, project_id)


def end_session(conn: Connection, person: Person, session_id: str) -> None:
    """End a session of one's own. Raises InvalidInput."""
    if not store.delete_session(conn, person.user_id, session_id):
        raise invalid("session", "is none of yours, or over already")


def change_password(conn: Connection, person: Person, password_hash: str) -> None:
    """Another password; everywhere else one is signed out."""
    store.set_password(conn, person.user_id, password_hash)
    store.delete_sessions(conn, person.user_id, but=person.session_id)


def password_hash_of(conn: Connection, person: Person) -> str | None:
    """What is kept of the person's password."""
    user = store.user_by_id(conn, person.user_id)
    return None if user is None else user.password_hash


emails_of = store.emails_of
has_users = store.has_users
sessions_of = store.sessions_of
