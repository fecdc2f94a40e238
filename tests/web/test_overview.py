"""The overview: what is shown of each heartbeat, in which order, and what its address says."""

import itertools
import re
import statistics
import time
from dataclasses import replace
from typing import get_args

import pytest
from sqlalchemy import Connection

from lifesign.bots import board as bot_board
from lifesign.bots import store as bot_store
from lifesign.bots.rules import RunStatus
from lifesign.clock import EpochMs
from lifesign.heartbeats import board, store
from lifesign.heartbeats.board import STATES, Wanted
from lifesign.heartbeats.past import Period
from lifesign.heartbeats.rules import Heartbeat, Mode, Status
from lifesign.web.strips import strip_of
from tests.bots.asking import read
from tests.bots.asking_runs import scheduled, triggered, worked
from tests.harness import Lifesign
from tests.web.browser import browser, said, signed_up
from tests.web.many import ten_thousand

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


def names(page: str) -> list[str]:
    """The rows of the table, from the top."""
    return [said(each) for each in re.findall(r'<td class="name">(.*?)</td>', page, re.DOTALL)]


async def test_an_empty_overview_shows_a_command_that_makes_the_first_row_appear(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    told = said(await owner.get("/"))
    command = re.search(r'-d \'(\{"name".*?\})\'', told)

    assert "curl -s http://lifesign.test/v1/heartbeats " in told
    assert command is not None
    made = await lifesign.http.post("/v1/heartbeats", content=command[1])

    assert made.status_code == 201
    assert names(await owner.get("/")) == ["Nightly Export"]


async def test_strangers_see_nothing_of_it(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Secret Project")

    assert "Secret" not in await browser(lifesign).get("/", expect=303)


async def test_every_state_is_a_word_and_the_worst_stands_first(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    for name in ("Alive", "Paused", "Late", "Firing", "Acked", "Snoozed"):
        await lifesign.heartbeat(name, interval=60, grace=0 if name in {"Firing", "Acked", "Snoozed"} else 600)
    await lifesign.advance(61)
    for name in ("alive", "new"):
        if name == "new":
            await lifesign.heartbeat("New", interval=3600)
        else:
            await lifesign.check_in(name)
    await lifesign.ask("POST", "/v1/heartbeats/paused/pause")
    await lifesign.ask("POST", "/v1/heartbeats/acked/ack")
    await lifesign.ask("POST", "/v1/heartbeats/snoozed/snooze", {"seconds": 600})

    page = await owner.get("/")

    assert names(page) == ["Firing", "Snoozed", "Late", "Acked", "New", "Alive", "Paused"]
    words = re.findall(r'<td><span class="state ([^"]*)">([^<]*)</span></td>', page)
    assert words == [
        ("firing", "firing"),
        ("held", "snoozed"),
        ("late", "late"),
        ("held", "acknowledged"),
        ("idle unseen-yet", "never seen"),
        ("alive", "alive"),
        ("idle", "paused"),
    ]
    assert "(1 firing)" in page


async def test_what_the_statement_says_of_a_state_is_what_the_rule_says(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("First")
    project_id, rows, now = await lifesign.node.db.write(_every_kind_of_row, made["id"], lifesign.now())

    found = {
        state: await lifesign.node.db.read(
            board.board, project_id, Wanted(state), now=now, sort="state", is_descending=False, limit=1000, offset=0
        )
        for state in STATES
    }

    assert {each.id: state for state in STATES for each in rows if each.id in found[state].ids} == {
        each.id: board.state_of(each, now) for each in rows
    }
    assert {board.state_of(each, now) for each in rows} == set(STATES)


def _every_kind_of_row(conn: Connection, first: str, now: EpochMs) -> tuple[str, list[Heartbeat], EpochMs]:
    seed = store.by_ids(conn, [first])[first]
    rows = [seed]
    moments = (None, EpochMs(now - 1), now, EpochMs(now + 1))
    choices = itertools.product(get_args(Status), get_args(Mode), (True, False), moments, moments, (None, now))
    for number, (status, mode, is_armed, deadline, snoozed, seen) in enumerate(choices):
        row = replace(
            seed,
            id=f"hb_{number:032x}",
            slug=f"row-{number}",
            ping_id=f"ping {number}",
            badge_id=f"badge {number}",
            status=status,
            mode=mode,
            is_armed=is_armed,
            next_deadline=deadline,
            snoozed_until=snoozed,
            last_checkin_at=seen,
        )
        assert store.insert_if_free(conn, row)
        rows.append(row)
    return seed.project_id, rows, now


async def test_the_address_says_what_is_shown(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Backup", namespace="prod", tags=["db", "night"])
    await lifesign.heartbeat("Import", namespace="lab", tags=["night"])
    await lifesign.heartbeat("Zebra", namespace="prod")
    await lifesign.ask("POST", "/v1/heartbeats/zebra/pause")

    shown = {
        query: names(await owner.get(f"/?{query}"))
        for query in (
            "sort=name",
            "sort=-name",
            "namespace=prod&sort=name",
            "tag=night&sort=name",
            "tag=nigh",
            "state=paused",
            "kind=system",
            "q=ACK",
            "q=nothing",
            "state=nonsense&kind=x&sort=y&page=z",
            "page=2",
        )
    }

    assert shown == {
        "sort=name": ["Backup db night", "Import night", "Zebra"],
        "sort=-name": ["Zebra", "Import night", "Backup db night"],
        "namespace=prod&sort=name": ["Backup db night", "Zebra"],
        "tag=night&sort=name": ["Backup db night", "Import night"],
        "tag=nigh": [],
        "state=paused": ["Zebra"],
        "kind=system": [],
        "q=ACK": ["Backup db night"],
        "q=nothing": [],
        "state=nonsense&kind=x&sort=y&page=z": ["Backup db night", "Import night", "Zebra"],
        "page=2": [],
    }


async def test_pages_of_fifty_hold_every_row_once(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    for number in range(53):
        await lifesign.heartbeat(f"Job {number:02}")

    first, second = await owner.get("/?sort=name"), await owner.get("/?sort=name&page=2")

    assert names(first) + names(second) == [f"Job {number:02}" for number in range(53)]
    assert "1 to 50 of 53" in said(first)
    assert 'rel="next" href="/?sort=name&amp;page=2"' in first
    assert 'rel="next"' not in second


@pytest.mark.parametrize("query", ["q", "tag", "namespace", "state", "kind", "sort", "page"])
async def test_markup_in_the_address_stays_text(lifesign: Lifesign, query: str) -> None:
    owner = await signed_up(lifesign)
    answer = await owner.http.get("/", params={query: HOSTILE})

    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text


async def test_markup_in_names_stays_text(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    hook = await lifesign.webhook("http://127.0.0.1:1/")
    policy = await lifesign.policy({"channels": [hook["id"]]}, name=HOSTILE)
    await lifesign.heartbeat(HOSTILE, namespace=HOSTILE, tags=[HOSTILE.replace(" ", "")], policy=policy["id"])

    page = await owner.get("/")

    assert said(page).count("<script>alert(1)</script>") >= 4
    assert "<script>alert" not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize(
    ("periods", "words"),
    [
        ([], "nothing yet"),
        (["on_time"] * 28 + ["late", "missed"], "28 on time, 1 late, 1 missed"),
        (["unknown"], "1 unknown"),
    ],
)
def test_a_strip_is_told_in_words(periods: list[Period], words: str) -> None:
    assert strip_of(periods).words == words


def test_a_strip_has_a_mark_for_each_period_and_ends_at_the_right() -> None:
    assert strip_of(["on_time", "missed", "on_time"]).paths == [
        ("on_time", "M137 7V18M147 7V18"),
        ("missed", "M142 0V18"),
    ]


# Schedules ----------------------------------------------------------------------------------------------------------
async def test_schedules_of_bots_stand_beside_what_checks_in(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Backup", interval=86_400)
    await lifesign.check_in("backup")
    made = await scheduled(lifesign, prompt="Sum up <b>the</b> news", interval_minutes=60)

    fresh = said(await owner.get("/"))
    await triggered(lifesign, made)
    await worked(lifesign)
    page = await owner.get("/")

    assert "never ran Night watch: Sum up <b>the</b> news schedule never" in re.sub(r" +", " ", fresh)
    assert names(page) == ["Backup", "Night watch: Sum up <b>the</b> news"]
    row = page[page.index(f'id="{made["uuid"]}"') :]
    assert f'href="/bots/{made["lifesign"]["bot_uuid"]}?schedule={made["uuid"]}"' in row
    assert f'<time datetime="{(await read(lifesign, made))["lifesign"]["next_run_at"]}"' in row
    assert "Last periods: 1 on time" in row
    assert 'data-asks-every="15"' in page


async def test_a_schedule_that_fails_stands_above_and_one_that_gave_up_first(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Alive", interval=86_400)
    await lifesign.check_in("alive")
    made = await scheduled(lifesign, interval_minutes=60, max_consecutive_errors=2)

    shown = []
    for _ in range(2):
        await lifesign.advance(3600)
        await worked(lifesign, status="error", error_message="no")
        shown.append(said(await owner.get("/?sort=state")))

    assert "all 2 late 1 alive 1" in shown[0]
    assert "failed Night watch:" in shown[0]
    assert "(1 firing)" in await owner.get("/")
    assert "given up Night watch:" in shown[1]
    assert made["uuid"] in await owner.get("/?state=firing")


async def test_the_address_looks_for_schedules_too(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Backup", namespace="prod", tags=["db"])
    await scheduled(lifesign, prompt="Sum up the news")

    shown = {
        query: len(names(await owner.get(f"/?{query}")))
        for query in (
            "",
            "kind=schedule",
            "kind=heartbeat",
            "q=NEWS",
            "q=nothing",
            "namespace=prod",
            "tag=db",
            "state=never_seen",
            "state=paused",
            "sort=-due",
            "sort=seen",
            "sort=name",
            "kind=schedule&page=2",
        )
    }

    assert shown == {
        "": 2,
        "kind=schedule": 1,
        "kind=heartbeat": 1,
        "q=NEWS": 1,
        "q=nothing": 0,
        "namespace=prod": 1,
        "tag=db": 1,
        "state=never_seen": 2,
        "state=paused": 0,
        "sort=-due": 2,
        "sort=seen": 2,
        "sort=name": 2,
        "kind=schedule&page=2": 0,
    }


async def test_what_the_statement_says_of_a_schedule_is_what_the_rule_says(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign)
    project_id, now = await lifesign.node.db.write(_every_kind_of_schedule, made["uuid"], lifesign.now())

    ranks, states = await lifesign.node.db.read(_told_twice, project_id, now)

    assert ranks == states
    assert set(states.values()) == {"firing", "late", "never_seen", "alive", "paused"}


def _every_kind_of_schedule(conn: Connection, first: str, now: EpochMs) -> tuple[str, EpochMs]:
    seed = bot_store.schedules_by_id(conn, [first])[first]
    moments = (None, EpochMs(now - bot_board.OVERDUE_MS), EpochMs(now - bot_board.OVERDUE_MS - 1), EpochMs(now + 1))
    statuses: tuple[RunStatus | None, ...] = (None, "success", "error")
    choices = itertools.product((True, False), (None, "system", "user:x"), moments, statuses, (None, now))
    for number, (is_enabled, by, next_run_at, status, executed) in enumerate(choices):
        row = replace(
            seed,
            id=f"sch_{number:032x}",
            prompt=f"prompt {number}",
            is_enabled=is_enabled,
            paused_by=by,
            next_run_at=next_run_at,
            last_status=status,
            last_executed_at=executed,
        )
        bot_store.insert_schedule(conn, row)
    return seed.project_id, now


def _told_twice(conn: Connection, project_id: str, now: EpochMs) -> tuple[dict[str, str], dict[str, str]]:
    rows = conn.execute(bot_board.lines(conn, project_id, search="", now=now)).all()
    seen = bot_board.by_ids(conn, project_id, [row.id for row in rows], runs=30, now=now)
    return {row.id: STATES[row.rank] for row in rows}, {key: each.state for key, each in seen.items()}


async def test_ten_thousand_rows_cost_less_than_a_tenth_of_a_second(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    first, planned = await lifesign.heartbeat("First"), await scheduled(lifesign)
    await lifesign.node.db.write(ten_thousand, first["id"], planned["uuid"], lifesign.now())

    costs_ms = {}
    for query in ("", "?sort=-due&page=150", "?q=99"):
        spent = []
        for _ in range(7):
            began = time.process_time()
            page = await owner.get(f"/{query}")
            spent.append((time.process_time() - began) * 1000)
            assert len(names(page)) == 50
        costs_ms[query] = statistics.median(spent)

    # Of the processor, in all threads: what else the machine does meanwhile does not count.
    assert max(costs_ms.values()) < 100, costs_ms
