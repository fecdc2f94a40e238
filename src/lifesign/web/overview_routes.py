"""HTTP of the overview: everything that beats, worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.heartbeats import board
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.board import KINDS, SORTS, STATES, Board, Kind, Sort, State, Wanted
from lifesign.heartbeats.rules import Heartbeat
from lifesign.http.context import base_url, context_of
from lifesign.incidents import policies
from lifesign.web.access import person_of
from lifesign.web.pages import page
from lifesign.web.strips import WIDTH, Strip, strip_of

router = APIRouter(include_in_schema=False)

_ROWS = 50
_MOST_PAGES = 100_000
_NAMESPACES = 200
_POLICIES = 1000
_LONGEST = 200

# How each state looks, and what it is called.
LOOKS: Mapping[State, tuple[str, str]] = {
    "firing": ("firing", "firing"),
    "snoozed": ("held", "snoozed"),
    "late": ("late", "late"),
    "acknowledged": ("held", "acknowledged"),
    "never_seen": ("idle unseen-yet", "never seen"),
    "alive": ("alive", "alive"),
    "paused": ("idle", "paused"),
    "done": ("idle", "done"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for; what it does not know is left out, as if it were not there."""

    wanted: Wanted
    sort: Sort
    is_descending: bool
    page: int

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Asked":
        text = {name: query.get(name, "").replace("\x00", "")[:_LONGEST] for name in ("namespace", "tag", "q")}
        state, kind = query.get("state"), query.get("kind")
        sort = query.get("sort", "state")
        number = query.get("page", "1")
        is_number = number.isascii() and number.isdigit() and len(number) <= len(str(_MOST_PAGES))
        return cls(
            Wanted(
                next((each for each in STATES if each == state), None),
                next((each for each in KINDS if each == kind), None),
                text["namespace"],
                text["tag"].strip(),
                text["q"].strip(),
            ),
            next((each for each in SORTS if each == sort.removeprefix("-")), "state"),
            sort.startswith("-"),
            max(1, int(number)) if is_number else 1,
        )

    def place(self, **changes: str) -> str:
        """The address of the same overview with some members changed; it begins with its first page."""
        members = {
            "q": self.wanted.search,
            "state": self.wanted.state or "",
            "kind": self.wanted.kind or "",
            "namespace": self.wanted.namespace,
            "tag": self.wanted.tag,
            "sort": "" if self.sort == "state" and not self.is_descending else self._sort,
        } | changes
        query = urlencode({name: value for name, value in members.items() if value})
        return f"/?{query}" if query else "/"

    def sorted_by(self, sort: str) -> str:
        """The address of the same overview in another order; asked again, in the opposite one."""
        is_again = sort == self.sort and not self.is_descending
        return self.place(sort=f"-{sort}" if is_again else sort)

    def direction(self, sort: str) -> str:
        """What a column says of itself to a screen reader; empty: it is in no order."""
        return "" if sort != self.sort else "descending" if self.is_descending else "ascending"

    @property
    def _sort(self) -> str:
        return f"-{self.sort}" if self.is_descending else self.sort


@dataclass(frozen=True, slots=True)
class Row:
    """One heartbeat as the table shows it."""

    heartbeat: Heartbeat
    state: State
    look: str
    word: str
    kind: Kind
    strip: Strip
    policy: str
    is_in_maintenance: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """What one page of the overview shows."""

    rows: Sequence[Row]
    counts: Mapping[State, int]
    namespaces: Sequence[str]
    seq: int


@router.get("/")
async def overview(request: Request) -> Response:
    """Everything that beats, firing first."""
    person = await person_of(request)
    context = context_of(request)
    asked = Asked.of(request.query_params)
    now = context.now()
    found = await context.db.read(_found, person.shown.project_id, asked, now)
    matching = sum(found.counts.values()) if asked.wanted.state is None else found.counts.get(asked.wanted.state, 0)
    return page(
        request,
        "overview",
        person,
        section="/",
        seq=found.seq,
        asked=asked,
        rows=found.rows,
        counts=found.counts,
        states=[(state, *LOOKS[state]) for state in STATES if found.counts.get(state) or state == asked.wanted.state],
        kinds=get_args(Kind),
        namespaces=found.namespaces,
        total=sum(found.counts.values()),
        matching=matching,
        first=(asked.page - 1) * _ROWS + 1,
        last=(asked.page - 1) * _ROWS + len(found.rows),
        is_filtered=asked.wanted != Wanted(),
        base=base_url(request),
        width=WIDTH,
    )


def _found(conn: Connection, project_id: str, asked: Asked, now: EpochMs) -> Overview:
    # First of all: what is committed after this is told to the page.
    seq = events.latest_seq(conn)
    found: Board = board.board(
        conn,
        project_id,
        asked.wanted,
        now=now,
        sort=asked.sort,
        is_descending=asked.is_descending,
        limit=_ROWS,
        offset=(asked.page - 1) * _ROWS,
    )
    by_id = heartbeats.by_ids(conn, found.ids)
    shown = [by_id[each] for each in found.ids]
    periods = heartbeats.recent_periods(conn, shown)
    covered = heartbeats.covered_until(conn, shown, now)
    names = {each.id: each.name for each in policies.list_policies(conn, project_id, limit=_POLICIES, after=None)}
    rows = [
        Row(
            each,
            state := board.state_of(each, now),
            *LOOKS[state],
            board.kind_of(each),
            strip_of(periods.get(each.id, [])),
            names.get(each.policy_id or "", ""),
            each.id in covered,
        )
        for each in shown
    ]
    return Overview(rows, found.counts, board.namespaces_of(conn, project_id, _NAMESPACES), seq)
