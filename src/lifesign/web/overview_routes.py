"""HTTP of the overview: everything that beats, worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.bots import board as bot_board
from lifesign.bots.board import SHOWN_PROMPT, Planned
from lifesign.bots.rules import RunStatus
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.heartbeats import board
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.board import KINDS, SORTS, STATES, Board, Kind, Sort, State, Wanted
from lifesign.heartbeats.past import MAX_PERIODS, Period
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
_LOOK_S = 15

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


# What the end of a run says of its period.
_PERIODS: Mapping[RunStatus, Period] = {"success": "on_time", "error": "missed"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. late_at: when it turns late by itself; due_at: None when nothing is expected."""

    id: str
    place: str
    name: str
    state: State
    look: str
    word: str
    kind: Kind
    namespace: str
    tags: Sequence[str]
    marks: Sequence[str]
    seen_at: EpochMs | None
    due_at: EpochMs | None
    late_at: EpochMs | None
    strip: Strip
    policy: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What one page of the overview shows."""

    rows: Sequence[Row]
    has_schedules: bool
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
        # Nothing is committed to the stream when a run begins or ends.
        **({"asks_every_s": _LOOK_S} if found.has_schedules else {}),
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
    wanted = asked.wanted
    # Schedules have neither namespaces nor tags.
    may_be_planned = wanted.kind in {None, "schedule"} and not (wanted.namespace or wanted.tag)
    has_schedules = may_be_planned and bot_board.has_schedules(conn, project_id)
    found: Board = board.board(
        conn,
        project_id,
        wanted,
        now=now,
        sort=asked.sort,
        is_descending=asked.is_descending,
        limit=_ROWS,
        offset=(asked.page - 1) * _ROWS,
        others=bot_board.lines(conn, project_id, search=wanted.search, now=now) if has_schedules else None,
    )
    by_id = heartbeats.by_ids(conn, found.ids)
    shown = list(by_id.values())
    periods = heartbeats.recent_periods(conn, shown)
    covered = heartbeats.covered_until(conn, shown, now)
    planned = bot_board.by_ids(
        conn, project_id, [each for each in found.ids if each not in by_id], runs=MAX_PERIODS, now=now
    )
    names = {each.id: each.name for each in policies.list_policies(conn, project_id, limit=_POLICIES, after=None)}
    rows = {
        each.id: _beating(each, periods.get(each.id, []), names, is_covered=each.id in covered, now=now)
        for each in shown
    } | {key: _planned(each, names, now) for key, each in planned.items()}
    return Overview(
        [rows[each] for each in found.ids if each in rows],
        has_schedules,
        found.counts,
        board.namespaces_of(conn, project_id, _NAMESPACES),
        seq,
    )


def _beating(
    heartbeat: Heartbeat, periods: Sequence[Period], policies: Mapping[str, str], *, is_covered: bool, now: EpochMs
) -> Row:
    state = board.state_of(heartbeat, now)
    due_at = heartbeat.next_deadline if heartbeat.is_armed else None
    marks = {
        "maintenance": is_covered,
        "flapping": heartbeat.is_flapping,
        "snoozed": state != "snoozed" and heartbeat.is_snoozed(now),
    }
    return Row(
        heartbeat.id,
        f"/heartbeats/{heartbeat.id}",
        heartbeat.called,
        state,
        *LOOKS[state],
        board.kind_of(heartbeat),
        heartbeat.namespace or "",
        heartbeat.tags,
        [mark for mark, is_so in marks.items() if is_so],
        heartbeat.last_checkin_at,
        due_at if heartbeat.is_watched else None,
        due_at if state in {"alive", "never_seen", "acknowledged"} else None,
        strip_of(periods),
        policies.get(heartbeat.policy_id or "", ""),
    )


def _planned(each: Planned, policies: Mapping[str, str], now: EpochMs) -> Row:
    schedule, state = each.schedule, each.state
    look, word = LOOKS[state]
    if state == "firing":
        word = "given up"
    elif state == "late" and schedule.last_status == "error":
        word = "failed"
    elif state == "never_seen":
        word = "never ran"
    prompt = " ".join(schedule.prompt[:SHOWN_PROMPT].split())
    due_at = None if state == "paused" else schedule.next_run_at
    watch = schedule.options.watch or {}
    return Row(
        schedule.id,
        f"/bots/{each.bot.id}?schedule={schedule.id}",
        f"{each.bot.name}: {prompt}",
        state,
        look,
        word,
        "schedule",
        "",
        (),
        (),
        schedule.last_executed_at,
        due_at,
        # The page looks again when its slot has come, to show the next one.
        due_at if due_at is not None and due_at > now else None,
        strip_of([_PERIODS.get(end, "unknown") for end in each.ends]),
        policies.get(str(watch.get("policy")), ""),
    )
