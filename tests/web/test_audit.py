"""The audit log: who wrote what, by page, API and command; and what leaves no line."""

from contextvars import copy_context

import httpx2
import pytest
from sqlalchemy import Connection, select, update

from lifesign.app import operator_way_in
from lifesign.audit import rules
from lifesign.audit import service as audit
from lifesign.audit.rules import Actor
from lifesign.clock import EpochMs
from lifesign.db.database import beside_writes
from lifesign.db.schema import audit_log
from tests.conftest import database_url
from tests.harness import Lifesign
from tests.web.browser import OWNER, PASSWORD, browser, said, signed_up

__all__ = ["database_url"]

ADMIN = "key:admin (test)"


async def lines(lifesign: Lifesign) -> list[tuple[str, str, str, str]]:
    """Who, by what, method and path; oldest first."""

    def read(conn: Connection) -> list[tuple[str, str, str, str]]:
        c = audit_log.c
        rows = conn.execute(select(c.actor, c.via, c.method, c.path).order_by(c.seq))
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    return await lifesign.node.db.read(read)


async def test_every_write_has_one_line_that_says_who_did_it_and_by_what(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    at = f"/heartbeats/{made['id']}"
    await owner.post(f"{at}/pause")
    await lifesign.ask("PATCH", f"/v1/heartbeats/{made['id']}", {"name": "New"}, user_agent="lifesign-cli")
    transport = httpx2.ASGITransport(operator_way_in(lifesign.node), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await client.post("/v1/keys", json={"name": "jobs", "scopes": ["checkins:write"]})
        await client.post("/admin/users", json={"email": "eve@example.org", "role": "viewer"})

    assert await lines(lifesign) == [
        (ADMIN, "api", "POST", "/v1/heartbeats"),
        (f"user:{OWNER}", "page", "POST", f"{at}/pause"),
        (ADMIN, "cli", "PATCH", f"/v1/heartbeats/{made['id']}"),
        ("operator", "cli", "POST", "/v1/keys"),
        ("operator", "cli", "POST", "/admin/users"),
    ]


async def test_what_was_refused_read_reported_or_only_shown_beforehand_has_none(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    viewer = await signed_up(lifesign, "eve@example.org", "viewer")
    made = await lifesign.heartbeat("Job")
    at = f"/heartbeats/{made['id']}"
    before = await lines(lifesign)
    assert before == [(ADMIN, "api", "POST", "/v1/heartbeats")]

    await lifesign.check_in(made["id"])
    await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/runs", {}, expect=201)
    await lifesign.ask("GET", "/v1/heartbeats")
    await lifesign.ask("POST", "/v1/heartbeats", {"name": ""}, expect=400)
    await lifesign.ask("DELETE", "/v1/heartbeats/hb_0", expect=404)
    await owner.post(f"{at}/checkin")
    await owner.post(f"{at}/resume", expect=400)
    await owner.post(
        "/heartbeats/new", {"name": "Seen", "mode": "recurring", "interval": "1h", "preview": "1"}, expect=200
    )
    await owner.post("/account/password", {"current": "a wrong password"}, expect=400)
    await viewer.post(f"{at}/pause", expect=403)
    await browser(lifesign).sign_in()

    assert await lines(lifesign) == before


async def test_another_password_has_a_line(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    new = "another granite otter 77"

    await owner.post("/account/password", {"current": PASSWORD, "password": new, "again": new})

    assert await lines(lifesign) == [(f"user:{OWNER}", "page", "POST", "/account/password")]


async def test_the_page_shows_the_newest_first_and_filters(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    await owner.post(f"/heartbeats/{made['id']}/pause")

    page = said(await owner.get("/audit"))

    assert page.index("/pause") < page.index("/v1/heartbeats")
    assert f"user:{OWNER}" in page
    only = said(await owner.get("/audit?via=api"))
    assert "/v1/heartbeats" in only
    assert "/pause" not in only
    mine = said(await owner.get(f"/audit?actor=user:{OWNER}"))
    assert "/pause" in mine
    assert "POST /v1/heartbeats" not in mine


async def test_lines_go_after_a_year(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Old")
    await lifesign.heartbeat("Newer")
    year = 365 * 86_400_000

    def age(conn: Connection) -> None:
        c = audit_log.c
        first, second = conn.scalars(select(c.seq).order_by(c.seq))
        conn.execute(update(audit_log).where(c.seq == first).values(at=lifesign.now() - year - 1))
        conn.execute(update(audit_log).where(c.seq == second).values(at=lifesign.now() - year + 3_600_000))

    await lifesign.node.db.write(age)
    assert len(await lines(lifesign)) == 2

    await lifesign.advance(120)

    assert len(await lines(lifesign)) == 1


@pytest.mark.parametrize(
    ("method", "path", "is_written"),
    [
        ("POST", "/v1/heartbeats", True),
        ("DELETE", "/v1/heartbeats/x", True),
        ("POST", "/v1/heartbeats/x/ack", True),
        ("POST", "/v1/heartbeats/x/checkin", False),
        ("POST", "/v1/heartbeats/x/runs/y/finish", False),
        ("POST", "/api/systems/heartbeat", False),
        ("POST", "/v1/bot/runs/finish", False),
        ("POST", "/v1/bot/heartbeat/trigger", True),
        ("POST", "/api/systems/x/suspend", True),
        ("GET", "/v1/heartbeats", False),
        ("POST", "/heartbeats/x/checkin", False),
        ("POST", "/heartbeats/x/pause", True),
    ],
)
def test_reports_are_not_written_down(method: str, path: str, is_written: bool) -> None:
    assert rules.is_written_down(method, path) is is_written


def test_what_a_request_left_behind_leaves_no_line() -> None:
    with audit.watching("POST", "/v1/policies", via="api", now=EpochMs(0)):
        audit.name(Actor("prj_1", "key_1", "key:one"), "api")
        left = copy_context()

    beside = left.get(beside_writes)

    assert beside is not None
    beside.write(None)  # type: ignore[arg-type]  # nothing is written, so that no connection is needed
