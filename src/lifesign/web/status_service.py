"""Public status pages: kept, and put together for whoever looks. Everything here runs in the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats import board
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.board import State
from lifesign.heartbeats.past import Day
from lifesign.heartbeats.rules import Heartbeat
from lifesign.ids import new_id
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Incident
from lifesign.systems import service as systems
from lifesign.systems.rules import SystemNotFound
from lifesign.web import status_store as store
from lifesign.web.status import SlugTaken, StatusPage, StatusPageNotFound, Wanted, up_share

DAYS = 90
_INCIDENTS = 50
_DAY_MS = 86_400_000

pages_of = store.pages_of


def get(conn: Connection, project_id: str, page_id: str) -> StatusPage:
    """One page. Raises StatusPageNotFound."""
    found = store.by_id(conn, project_id, page_id)
    if found is None:
        raise StatusPageNotFound
    return found


def create(conn: Connection, project_id: str, wanted: Wanted, now: EpochMs) -> StatusPage:
    """A new page. Raises InvalidInput for members that are not there, SlugTaken."""
    page = StatusPage(
        new_id("sp", now),
        project_id,
        wanted.slug,
        wanted.title,
        wanted.description,
        wanted.is_on,
        _ids(conn, project_id, wanted.members),
        now,
        None,
    )
    if not store.insert(conn, page):
        raise SlugTaken
    return page


def edit(conn: Connection, project_id: str, page_id: str, wanted: Wanted, now: EpochMs) -> None:
    """Change a page. Raises StatusPageNotFound, InvalidInput, SlugTaken."""
    before = store.by_id(conn, project_id, page_id, lock=True)
    if before is None:
        raise StatusPageNotFound
    other = store.by_slug(conn, wanted.slug)
    if other is not None and other.id != page_id:
        raise SlugTaken
    store.save(
        conn,
        replace(
            before,
            slug=wanted.slug,
            title=wanted.title,
            description=wanted.description,
            is_on=wanted.is_on,
            heartbeats=_ids(conn, project_id, wanted.members),
            updated_at=now,
        ),
    )


def delete(conn: Connection, project_id: str, page_id: str) -> None:
    """Remove a page. Raises StatusPageNotFound."""
    get(conn, project_id, page_id)
    store.delete_page(conn, page_id)


def _ids(conn: Connection, project_id: str, refs: Sequence[str]) -> tuple[str, ...]:
    known: dict[str, str] = {**heartbeats.ids_of_refs(conn, project_id, refs)}
    for ref in refs:
        if ref not in known:
            try:
                known[ref] = systems.get(conn, project_id, ref).heartbeat_id
            except SystemNotFound:
                continue
    faults = [
        Fault(f"members[{n}]", "unknown heartbeat or system", ref, has_value=True)
        for n, ref in enumerate(refs)
        if ref not in known
    ]
    if faults:
        raise InvalidInput(*faults)
    return tuple(dict.fromkeys(known[ref] for ref in refs))


# What everybody sees ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Member:
    """One line of a page. share: how much of the days it was up, in words."""

    name: str
    state: State
    days: Sequence[Day]
    share: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A page as everybody sees it. names: of its members by id; incidents: newest first, open ones among them."""

    page: StatusPage
    members: Sequence[Member]
    incidents: Sequence[Incident]
    names: Mapping[str, str]


def find(conn: Connection, slug: str) -> StatusPage:
    """The page with this address, if it is on. Raises StatusPageNotFound."""
    found = store.by_slug(conn, slug)
    if found is None or not found.is_on:
        raise StatusPageNotFound
    return found


def shown(conn: Connection, page: StatusPage, now: EpochMs) -> Shown:
    """What a page says now. Members that were deleted are left out."""
    by_id = heartbeats.by_ids(conn, page.heartbeats)
    found = [by_id[each] for each in page.heartbeats if each in by_id and by_id[each].project_id == page.project_id]
    since = EpochMs(now - DAYS * _DAY_MS)
    happened = incidents.of_heartbeats(conn, [each.id for each in found], since=since, limit=_INCIDENTS)
    return Shown(page, [_member(conn, each, now) for each in found], happened, {each.id: each.called for each in found})


def _member(conn: Connection, heartbeat: Heartbeat, now: EpochMs) -> Member:
    days = heartbeats.days(conn, heartbeat.project_id, heartbeat.id, count=DAYS, now=now)
    return Member(heartbeat.called, board.state_of(heartbeat, now), days, up_share(days))
