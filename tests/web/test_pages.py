"""Pages of heartbeats and incidents: what they show, what they do, and to whom they refuse it."""

import html
import re
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.projects import service as projects
from lifesign.projects.service import Order
from tests.harness import Json, Lifesign, MakeLifesign
from tests.pings.pinging import check, send
from tests.web.browser import OWNER, Browser, executed_by, said, signed_up

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
FORM = {"name": "Backup", "mode": "recurring", "interval": "1h", "grace": "5m", "timezone": "UTC"}


async def firing(lifesign: Lifesign, name: str = "Silent", **fields: object) -> tuple[Json, Json]:
    """A heartbeat that fires, with two messages in the future, and its incident."""
    hook = await lifesign.webhook("http://127.0.0.1:1/", name="hook")
    steps = (
        {"channels": [hook["id"]]},
        {"channels": [hook["id"]], "wait": 300},
        {"channels": [hook["id"]], "wait": 300},
    )
    policy = await lifesign.policy(*steps)
    made = await lifesign.heartbeat(name, **fields, interval=60, grace=0, policy=policy["id"])
    await lifesign.advance(61)
    [incident] = await lifesign.incidents(made["id"])
    return made, incident


# Making and changing ------------------------------------------------------------------------------------------------
async def test_a_heartbeat_is_made_by_a_form_and_shows_how_it_checks_in(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/heartbeats/new")

    place = await owner.post("/heartbeats/new", FORM | {"tags": "db night", "namespace": "prod"})

    made = await lifesign.get("backup")
    assert place == f"/heartbeats/{made['id']}"
    assert (made["interval"], made["grace"], made["tags"], made["namespace"]) == (3600, 300, ["db", "night"], "prod")
    page = said(await owner.get(place))
    assert "never seen" in page
    assert "every 1h, 5m of grace" in page
    assert f"Made by {OWNER}" in page
    assert 'curl -fsS -m 10 --retry 5 -X POST http://lifesign.test/v1/heartbeats/backup/checkin -H "Auth' in page


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_recipes_are_there_for_whatever_runs_the_job(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    by_cron = {"mode": "scheduled", "schedule": "15 3 * * 1"}
    by_systemd = {"mode": "scheduled", "schedule": "Mon..Fri 06:30"}
    made = [await lifesign.heartbeat("Job", **each) for each in (by_cron, by_systemd, {})]

    pages = [html.unescape(await owner.get(f"/heartbeats/{each['id']}")) for each in made]

    cron, systemd, recurring = [re.findall(r"<pre tabindex=\"0\">(.*?)</pre>", each, re.DOTALL) for each in pages]
    url = "http://lifesign.test/v1/heartbeats/job/checkin"
    curl = f'curl -fsS -m 10 --retry 5 -X POST {url} -H "Authorization: Bearer '
    unit = "[Service]\nType=oneshot\nEnvironmentFile=/etc/lifesign.env\n"
    unit += "ExecStart=lifesign run job -- /usr/local/bin/your-command"
    python = "import urllib.request\n\nurllib.request.urlopen(urllib.request.Request(\n"
    python += f'    "{url}",\n    method="POST", headers={{"Authorization": f"Bearer {{KEY}}"}},\n), timeout=10)'
    assert cron == [
        f'{curl}$KEY"',
        f"curl -fsS -m 10 --retry 5 -o /dev/null {made[0]['pingUrl']}",
        "LIFESIGN_URL=http://lifesign.test LIFESIGN_KEY=$KEY lifesign run job -- ./your-command",
        f'15 3 * * 1 ./your-command && {curl}$KEY"',
        unit,
        python,
        f'- name: Tell Lifesign\n  if: success()\n  run: {curl}${{{{ secrets.LIFESIGN_KEY }}}}"',
    ]
    # What cron cannot read does not stand in a crontab.
    assert (len(systemd), len(recurring)) == (6, 7)
    assert not any("your-command &&" in each for each in systemd)
    assert recurring[3].startswith("0 2 * * * ./your-command && ")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "domain"),
    [
        ({}, None),
        ({"ping_smtp_listen": "127.0.0.1:0"}, "lifesign.test"),
        ({"ping_smtp_listen": "127.0.0.1:0", "ping_email_domain": "hb.example.org"}, "hb.example.org"),
    ],
)
async def test_whoever_may_change_a_heartbeat_is_shown_how_to_ping_it(
    start_lifesign: MakeLifesign, changes: dict[str, Any], domain: str | None
) -> None:
    async with start_lifesign(**changes) as lifesign:
        owner, viewer = await signed_up(lifesign), await signed_up(lifesign, "eve@example.org", "viewer")
        made = await lifesign.heartbeat()
        ping_id = made["pingUrl"].rpartition("/")[2]

        page, seen = [said(await each.get(f"/heartbeats/{made['id']}")) for each in (owner, viewer)]

    assert f"curl -fsS -m 10 --retry 5 -o /dev/null {made['pingUrl']}" in page
    assert (f"{ping_id}@" in page) == (domain is not None)
    assert domain is None or f"{ping_id}@{domain}" in page
    assert ping_id not in seen


async def test_the_next_deadlines_are_shown_before_anything_is_made(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    schedule = {"mode": "scheduled", "schedule": "30 2 * * *", "timezone": "Europe/Berlin", "preview": "1"}

    page = said(await owner.post("/heartbeats/new", FORM | schedule, expect=200))

    assert "Tue 2026-01-06 02:30:00 CET" in page
    assert "Sat 2026-01-10 02:30:00 CET" in page
    assert await lifesign.ask("GET", "/v1/heartbeats") == {"heartbeats": []}


async def test_a_schedule_of_cron_is_told_in_words(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    schedule = {"mode": "scheduled", "schedule": "*/15 9-17  * * 1-5", "timezone": "Europe/Berlin"}

    preview = said(await owner.post("/heartbeats/new", FORM | schedule | {"preview": "1"}, expect=200))
    place = await owner.post("/heartbeats/new", FORM | schedule)
    calendar = {"mode": "scheduled", "schedule": "Mon *-*-* 02:00", "timezone": "UTC", "preview": "1"}
    other = said(await owner.post("/heartbeats/new", FORM | calendar, expect=200))

    words = "Every 15th minute from 09:00 through 17:59 on Monday through Friday"
    assert f"Next deadlines {words}, Europe/Berlin." in preview
    assert f"*/15 9-17 * * 1-5 ({words}), Europe/Berlin" in said(await owner.get(place))
    assert "Next deadlines Mon 2026-01-12 02:00:00 UTC" in other


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "Name is required"),
        ({"interval": "soon"}, "Interval must be a duration, such as 90s, 15m or 1h 30m"),
        ({"interval": ""}, "Interval is required"),
        ({"mode": "scheduled", "schedule": "61 * * * *"}, "Schedule "),
        ({"timezone": "Mars/Olympus"}, "Time zone "),
        ({"policy": "pol_0"}, "Policy unknown policy"),
        ({"mode": "weekly"}, "Mode "),
    ],
)
async def test_a_refused_form_keeps_what_was_typed_and_says_what_is_wrong(
    lifesign: Lifesign, changes: dict[str, str], told: str
) -> None:
    owner = await signed_up(lifesign)

    page = await owner.post("/heartbeats/new", FORM | {"description": "kept"} | changes, expect=400)

    assert told in said(page)
    assert ">kept</textarea>" in page
    assert await lifesign.ask("GET", "/v1/heartbeats") == {"heartbeats": []}


async def test_a_heartbeat_is_changed_and_what_was_emptied_is_taken_away(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Old", namespace="prod", tags=["a"], description="words")
    page = await owner.get(f"/heartbeats/{made['id']}/edit")
    assert 'value="1h"' in page

    await owner.post(f"/heartbeats/{made['id']}/edit", FORM | {"name": "New", "interval": "2h", "tags": "b"})

    after = await lifesign.get(made["id"])
    assert (after["name"], after["interval"], after["tags"]) == ("New", 7200, ["b"])
    assert "namespace" not in after
    assert "description" not in after


# Doing --------------------------------------------------------------------------------------------------------------
async def test_buttons_check_in_pause_resume_snooze_and_end_the_snooze(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    path = f"/heartbeats/{made['id']}"

    for deed, fields in (
        ("checkin", {}),
        ("pause", {}),
        ("resume", {}),
        ("snooze", {"seconds": "900", "reason": "deploying"}),
        ("unsnooze", {}),
    ):
        assert await owner.post(f"{path}/{deed}", fields) == path

    types = await lifesign.event_types(made["id"])
    assert types == ["snooze_ended", "snoozed", "resumed", "paused", "checkin", "created"]
    page = said(await owner.get(path))
    for words in ("Checked in", "Paused", "Resumed", "Snoozed"):
        assert f"{words} by {OWNER}" in page
    assert "reason: deploying" in page


async def test_what_the_state_forbids_is_told_in_words(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")

    page = await owner.post(f"/heartbeats/{made['id']}/resume", {}, expect=400, accept="text/html")

    assert "not paused" in said(page)


async def test_a_heartbeat_goes_only_when_its_name_is_typed(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")

    await owner.post(f"/heartbeats/{made['id']}/delete", {"name": "job"}, expect=400)
    assert (await lifesign.get(made["id"]))["name"] == "Job"
    assert await owner.post(f"/heartbeats/{made['id']}/delete", {"name": "Job"}) == "/"

    await lifesign.ask("GET", f"/v1/heartbeats/{made['id']}", expect=404)


@pytest.mark.parametrize(
    ("fields", "called"),
    [({"slug": "job"}, "job"), ({}, "check {uuid:.8}"), ({"name": "two\r\nlines  of it"}, "two lines of it")],
)
async def test_a_check_without_a_name_or_with_several_lines_of_it_is_called_something_on_every_page(
    lifesign: Lifesign, fields: dict[str, Any], called: str
) -> None:
    owner, viewer = await signed_up(lifesign), await signed_up(lifesign, "eve@example.org", "viewer")
    hook = (await lifesign.webhook("http://127.0.0.1:1/"))["id"]
    policy = (await lifesign.policy({"channels": [hook]}))["id"]
    made = await check(lifesign, channels=hook, policy=policy, **fields)
    await send(lifesign, f"{made['ping_url']}/fail")
    [beat] = (await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"]
    [incident] = await lifesign.incidents(beat["id"])
    form = {"title": "Shop", "slug": "shop", "description": "", "members": beat["id"], "is_on": "on"}
    await owner.get("/settings/status/new")
    await owner.post("/settings/status/new", form)
    called = called.format(**made)

    at = f"/heartbeats/{beat['id']}"
    for path, words in (
        ("/", f"firing {called} heartbeat"),
        (at, f" {called} firing "),
        ("/incidents", f"Notes {called} said that it is unhealthy"),
        (f"/incidents/{incident['id']}", f"{called} said that it is unhealthy"),
        (f"/policies/{policy}", called),
        (f"/channels/{hook}", called),
        ("/status/shop", f" {called} down "),
        ("/status/shop/rss.xml", f"{called}: down"),
    ):
        page = await viewer.get(path)
        assert words in said(page), path
        assert made["uuid"] not in page, path
    assert f"Change {called}" in said(await owner.get(f"{at}/edit"))
    assert f"Type its name, {called}, to delete it." in said(await owner.get(at))
    await owner.post(f"{at}/delete", {"name": ""}, expect=400)
    await owner.post(f"{at}/delete", {"name": called})
    await lifesign.ask("GET", f"/v1/heartbeats/{beat['id']}", expect=404)


async def test_a_long_history_has_pages(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    for _ in range(55):
        await lifesign.check_in(made["id"])

    first = await owner.get(f"/heartbeats/{made['id']}")
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    second = await owner.get(older[1])

    assert (first.count("Checked in"), second.count("Checked in")) == (50, 5)
    assert "Made" in said(second)


async def test_a_page_of_the_history_leads_to_the_one_after_it(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    for _ in range(55):
        await lifesign.check_in(made["id"])

    page, ids = await owner.get(f"/heartbeats/{made['id']}"), []
    while True:
        ids += re.findall(r'<li class="[^"]*" id="event-(\d+)">', page)
        found = re.search(r'rel="next" href="([^"]+)" data-more', page)
        if found is None:
            break
        page = await owner.get(found[1])

    assert [int(each) for each in ids] == sorted({int(each) for each in ids}, reverse=True)
    assert len(ids) == 56


async def test_how_long_runs_take_is_drawn_and_told(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    path = f"/v1/heartbeats/{made['id']}/runs"
    assert "How long its runs take" not in await owner.get(f"/heartbeats/{made['id']}")
    for number, (seconds, ok) in enumerate([(60, True), (120, True), (90, False), (30, True)]):
        await lifesign.ask("POST", path, {"runId": f"r{number}"}, expect=201)
        await lifesign.advance(seconds)
        await lifesign.ask("POST", f"{path}/r{number}/finish", {"ok": ok})
    await lifesign.ask("POST", path, {"runId": "open"}, expect=201)

    page = await owner.get(f"/heartbeats/{made['id']}")

    told = said(page)
    assert (
        "Last 4 runs; of 3 that ended well half took at most 1m 0s (p50, the solid line), 95 % at most 2m 0s "
        "(p95, dashed), the longest 2m 0s." in told
    )
    rows = re.findall(r"<tr><td>[^<]*</td><td>([^<]*)</td><td>([^<]*)</td></tr>", page)
    assert rows == [("1m 0s", "finished"), ("2m 0s", "finished"), ("1m 30s", "failed"), ("30.0 s", "finished")]
    assert [
        (look, height) for look, height in re.findall(r'<rect class="(\w+)"[^>]* width="18" height="([\d.]+)">', page)
    ] == [
        ("alive", "22.0"),
        ("alive", "44.0"),
        ("firing", "33.0"),
        ("alive", "11.0"),
    ]
    assert re.findall(r'class="mark (p\d+)" d="M0 ([\d.]+)H96"', page) == [("p50", "26.0"), ("p95", "4.0")]


# Incidents ----------------------------------------------------------------------------------------------------------
async def test_an_acknowledgement_tells_who_and_why_and_nothing_more_is_sent(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made, incident = await firing(lifesign)
    path = f"/incidents/{incident['id']}"
    before = said(await owner.get(path))
    assert "Silent missed its check-in open" in before
    assert "step 2 of 3 of Standard" in before
    assert "Silent" in said(await owner.get("/incidents"))

    await owner.post(f"{path}/ack", {"message": "making room"})

    after = said(await owner.get(path))
    assert f"Acknowledged by user:{OWNER}: making room" in after
    assert "Next" not in after
    shown = await lifesign.ask("GET", f"/v1/incidents/{incident['id']}")
    assert (shown["status"], shown["resolution"], shown["message"]) == ("resolved", "ack", "making room")
    assert {each["status"] for each in shown["notifications"]} <= {"canceled", "sent", "dead"}
    assert (await lifesign.get(made["id"]))["status"] == "resolved"


async def test_an_incident_that_is_over_stays_as_it_was(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made, incident = await firing(lifesign)
    await lifesign.check_in(made["id"])

    await owner.post(f"/incidents/{incident['id']}/ack", {"message": "too late"})

    page = said(await owner.get(f"/incidents/{incident['id']}"))
    assert "Over by a check-in" in page
    assert "too late" not in page


async def test_the_story_has_every_attempt(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    _, incident = await firing(lifesign)

    page = said(await owner.get(f"/incidents/{incident['id']}"))

    assert re.search(r"Page to hook, step 1: pending .* Attempt 1, .*: retry after \d+ ms, connect", page)


# Who may ------------------------------------------------------------------------------------------------------------
async def test_a_viewer_sees_everything_and_finds_nothing_to_press(lifesign: Lifesign) -> None:
    made, incident = await firing(lifesign)
    viewer = await signed_up(lifesign, "eve@example.org", "viewer")

    for path in ("/", f"/heartbeats/{made['id']}", "/incidents", f"/incidents/{incident['id']}"):
        page = await viewer.get(path)
        assert "Silent" in said(page)
        assert set(re.findall(r'<form[^>]* action="([^"]+)"', page)) <= {"/", "/signout", "/theme", "/zone"}
        assert "/heartbeats/new" not in page


async def test_every_change_is_refused_to_a_viewer_and_without_the_token(lifesign: Lifesign) -> None:
    made, incident = await firing(lifesign)
    viewer = await signed_up(lifesign, "eve@example.org", "viewer")
    owner = await signed_up(lifesign)
    before = await lifesign.events(made["id"])
    paths = [
        "/heartbeats/new",
        *(f"/heartbeats/{made['id']}/{deed}" for deed in _DEEDS),
        f"/incidents/{incident['id']}/ack",
        f"/incidents/{incident['id']}/retry/{incident['notifications'][0]['id']}",
    ]

    for path in paths:
        await viewer.post(path, FORM | {"name": "Silent", "seconds": "60"}, expect=403)
        await owner.post(path, FORM | {"name": "Silent", "seconds": "60", "csrf": "0" * 64}, expect=403)
    await viewer.get("/heartbeats/new", expect=403)
    await viewer.get(f"/heartbeats/{made['id']}/edit", expect=403)

    assert await lifesign.events(made["id"]) == before
    assert len((await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"]) == 1


_DEEDS = ("edit", "checkin", "pause", "resume", "snooze", "unsnooze", "delete")


async def test_pages_show_nothing_of_another_project(lifesign: Lifesign) -> None:
    made, incident = await firing(lifesign)
    other = await lifesign.node.db.write(_other_project, lifesign.now())
    guest = await signed_up(lifesign, "eve@example.org", "owner", other)

    for path in (f"/heartbeats/{made['id']}", f"/heartbeats/{made['id']}/edit", f"/incidents/{incident['id']}"):
        await guest.get(path, expect=404)
    for path in (f"/heartbeats/{made['id']}/pause", f"/incidents/{incident['id']}/ack"):
        await guest.post(path, {}, expect=404)
    assert "Silent" not in await guest.get("/")
    assert "Silent" not in await guest.get("/incidents")


def _other_project(conn: Connection, now: EpochMs) -> str:
    made, _ = projects.create(conn, Order("Lab", 0, tenant_id="research"), now)
    return made.id


# Markup -------------------------------------------------------------------------------------------------------------
async def test_markup_stays_text_on_every_page(lifesign: Lifesign) -> None:
    owner: Browser = await signed_up(lifesign)
    made, incident = await firing(
        lifesign, name=HOSTILE, namespace=HOSTILE, description=HOSTILE, tags=[HOSTILE.replace(" ", "")]
    )
    await lifesign.check_in(made["id"], metadata={HOSTILE: HOSTILE})
    await lifesign.check_in(made["id"], healthy=False, metadata={HOSTILE: HOSTILE})
    [latest] = [each for each in await lifesign.incidents(made["id"]) if each["status"] == "open"]
    await owner.get("/")
    await owner.post(f"/heartbeats/{made['id']}/snooze", {"seconds": "60", "reason": HOSTILE})
    paths = ["/", f"/heartbeats/{made['id']}", f"/heartbeats/{made['id']}/edit", "/incidents"]
    pages = [await owner.get(path) for path in [*paths, f"/incidents/{incident['id']}"]]
    await owner.post(f"/incidents/{latest['id']}/ack", {"message": HOSTILE})
    pages += [await owner.get(path) for path in ("/incidents", f"/incidents/{latest['id']}")]
    pages.append(await owner.post("/heartbeats/new", dict.fromkeys(FORM, HOSTILE), expect=400))

    assert all("alert(1)" in page for page in pages)
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert executed_by(page) == []


async def test_markup_stays_text_on_pages_of_what_is_set(lifesign: Lifesign, closed_port: int) -> None:
    owner = await signed_up(lifesign)
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x", name=HOSTILE, headers={"X-Team": HOSTILE})
    policy = await lifesign.policy({"channels": [hook["id"]], "message": HOSTILE}, name=HOSTILE)
    await lifesign.heartbeat(HOSTILE, policy=policy["id"], channels=[hook["id"]])
    fields = {"name": HOSTILE, "type": HOSTILE, "fqdn": HOSTILE, "notes": HOSTILE}
    system = (await lifesign.ask("POST", "/api/systems", fields, expect=201))["data"]
    window = {"name": HOSTILE, "schedule": "0 3 * * *", "duration": 3600, "namespaces": [HOSTILE]}
    announced = await lifesign.ask("POST", "/v1/maintenance", window, expect=201)
    key = await lifesign.ask("POST", "/v1/keys", {"name": HOSTILE, "scopes": ["*"]}, expect=201)
    async with lifesign.client(key["token"]) as hostile:
        assert (await hostile.patch("/v1/settings", json={"fallbackChannel": hook["id"]})).status_code == 200
        prices = [{"model": HOSTILE, "input_usd_per_million": 1, "output_usd_per_million": 2}]
        changed = {"project_id": "default", "prices": prices}
        assert (await hostile.put("/v1/bot/settings", json=changed)).status_code == 200

    for path in (
        "/policies",
        f"/policies/{policy['id']}",
        "/channels",
        f"/channels/{hook['id']}",
        f"/channels/{hook['id']}/edit",
        "/systems",
        f"/systems/{system['id']}",
        f"/systems/{system['id']}/edit",
        "/keys",
        "/settings",
        f"/settings/maintenance/{announced['id']}/edit",
        f"/settings/bots/prices/edit?of={quote(HOSTILE)}",
        "/audit",
    ):
        page = await owner.get(path)
        assert "alert(1)" in page, path
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
        assert executed_by(page) == [], path
