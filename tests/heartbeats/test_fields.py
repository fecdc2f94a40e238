"""Sections 3 and 4 of spec "Heartbeats": the fields of a heartbeat, its slug, and how many there may be."""

import asyncio
import re
from typing import Any

import pytest

from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.shared import after, every_heartbeat, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

Fields = dict[str, Any]  # Any: JSON


async def fault_fields(office: Lifesign, body: Fields) -> list[str]:
    return [each["field"] for each in await refused(office, "POST", "/v1/heartbeats", body)]


async def test_a_new_heartbeat_has_every_default(office: Lifesign) -> None:
    made = await office.ask(
        "POST", "/v1/heartbeats", {"name": "Nightly Export", "mode": "recurring", "interval": 3600}, expect=201
    )

    assert made == {
        "id": made["id"],
        "name": "Nightly Export",
        "slug": "nightly-export",
        "mode": "recurring",
        "status": "active",
        "interval": 3600,
        "grace": 60,
        "timezone": "UTC",
        "createdAt": after(office, 0),
        "nextDeadline": after(office, 3600),
        "firesAt": after(office, 3660),
        "stickyPause": True,
        "pingUrl": made["pingUrl"],
    }
    assert re.fullmatch(r"http://lifesign\.test/ping/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["pingUrl"])
    assert await office.get(made["id"]) == made


async def test_who_may_only_read_is_not_told_how_to_ping(office: Lifesign) -> None:
    made = await office.heartbeat("Not for you")
    key = await office.ask("POST", "/v1/keys", {"name": "reader", "scopes": ["heartbeats:read"]}, expect=201)

    async with office.client(key["token"]) as http:
        read = (await http.get(f"/v1/heartbeats/{made['id']}")).json()
        (listed,) = (await http.get("/v1/heartbeats?q=not-for-you")).json()["heartbeats"]

    assert read == listed == {name: value for name, value in made.items() if name != "pingUrl"}


async def test_a_heartbeat_shows_all_that_it_was_given(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]
    policy = (await office.policy({"channels": [channel]}))["id"]
    given: Fields = {
        "name": "All",
        "mode": "scheduled",
        "schedule": "0 2 * * *",
        "grace": 0,
        "timezone": "Europe/Berlin",
        "slug": "the_slug-1",
        "policy": policy,
        "namespace": "billing",
        "metadata": {"host": "a", "n": 1.5, "deep": [{"x": None}]},
        "description": "What it is for.\nSecond line.",
        "tags": ["a", "b"],
        "channels": [channel],
        "stickyPause": False,
    }

    made = await office.ask("POST", "/v1/heartbeats", given, expect=201)

    assert {key: made[key] for key in given} == given


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "a", "mode": "recurring"}, "interval"),
        ({"name": "a", "mode": "oneshot"}, "interval"),
        ({"name": "a", "mode": "scheduled"}, "schedule"),
        ({"name": "a", "mode": "weekly"}, "mode"),
        ({"name": "a", "interval": 60}, "mode"),
        ({"mode": "recurring", "interval": 60}, "name"),
        ({"name": "a", "mode": "recurring", "interval": 60, "schedule": "0 2 * * *"}, "schedule"),
        ({"name": "a", "mode": "oneshot", "interval": 60, "schedule": "0 2 * * *"}, "schedule"),
        ({"name": "a", "mode": "scheduled", "interval": 60, "schedule": "0 2 * * *"}, "interval"),
    ],
)
async def test_each_mode_needs_its_own_field_and_no_other(office: Lifesign, body: Fields, field: str) -> None:
    assert (await fault_fields(office, body))[0] == field


@pytest.mark.parametrize(
    "schedule",
    ["0 0 30 2 *", "0 0 * *", "0 0 0 * * *", "@daily", "", " ", "61 * * * *", "a b c d e", "* * * * * " + "x" * 100],
)
async def test_a_schedule_that_is_none_is_refused(office: Lifesign, schedule: str) -> None:
    assert await fault_fields(office, {"name": "a", "mode": "scheduled", "schedule": schedule}) == ["schedule"]


@pytest.mark.parametrize("zone", ["Mars/Base", "europe/berlin", "", "UTC+1", "../etc/passwd", "CEST"])
async def test_a_time_zone_is_spelled_exactly_as_iana_does(office: Lifesign, zone: str) -> None:
    body = {"name": "a", "mode": "recurring", "interval": 60, "timezone": zone}

    assert await fault_fields(office, body) == ["timezone"]


async def test_blanks_of_a_schedule_are_folded(office: Lifesign) -> None:
    made = await office.heartbeat(mode="scheduled", schedule="  0   2 *\t* MON ")

    assert made["schedule"] == "0 2 * * MON"


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("interval", [1, 315_360_000], [0, -1, 315_360_001]),
        ("grace", [0, 31_536_000], [-1, 31_536_001]),
        ("namespace", ["n", "n" * 100, "with blank"], ["", " ", "n" * 101, "a\nb", 5]),
        ("description", ["", "d" * 10_000, "a\nb"], ["d" * 10_001, 5]),
        (
            "tags",
            [[], ["t"] * 50, ["t" * 100]],
            [["t"] * 51, ["t" * 101], [""], ["a b"], ["a\u00a0b"], ["a\tb"], "t", [5]],
        ),
        ("tags", [["t" * 100] * 5, [c * 100 for c in "abcd"]], [[c * 100 for c in "abcde"]]),
        ("metadata", [{}, {"a": "x" * 16_376}], [{"a": "x" * 16_377}, [], "text", 5]),
        ("slug", ["a", "a-b_c9", "9" * 100], ["", "A", "a b", "hb_abc", "ä", "a" * 101, "a/b", 5]),
        ("channels", [[]], [["ch_x"], ["x"] * 51, "x", [5]]),
        ("policy", [], ["", "pol_x", 5]),
        ("armed", [True, False], ["true", 1]),
        ("stickyPause", [True, False], ["true", 1]),
    ],
)
async def test_fields_have_bounds(office: Lifesign, field: str, good: list[object], bad: list[object]) -> None:
    base: Fields = {"name": "Bounds", "mode": "recurring", "interval": 60}

    for value in good:
        await office.ask("POST", "/v1/heartbeats", base | {field: value}, expect=201)
    for value in [*bad, None]:
        fields = await fault_fields(office, base | {field: value})
        assert {each.partition("[")[0] for each in fields} == {field}, value


async def test_tags_joined_by_blanks_have_a_limit(office: Lifesign) -> None:
    # 5 tags and 4 blanks: 496 + 4 = 500 characters.
    fitting = ["a" * 100, "b" * 100, "c" * 100, "d" * 100, "e" * 96]

    made = await office.heartbeat(tags=fitting)

    assert made["tags"] == fitting
    body = {"name": "a", "mode": "oneshot", "interval": 5, "tags": [*fitting[:4], "e" * 97]}
    assert await fault_fields(office, body) == ["tags"]


async def test_repeated_tags_and_channels_are_folded(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]

    made = await office.heartbeat(tags=["b", "a", "b"], channels=[channel, channel])

    assert made["tags"] == ["b", "a"]
    assert made["channels"] == [channel]


async def test_empty_lists_are_left_out(office: Lifesign) -> None:
    made = await office.heartbeat(tags=[], channels=[])

    assert "tags" not in made
    assert "channels" not in made


def nested(levels: int) -> Fields:
    return {"a": nested(levels - 1)} if levels > 1 else {}


async def test_metadata_may_be_sixteen_levels_deep(office: Lifesign) -> None:
    made = await office.heartbeat(metadata=nested(16))

    assert made["metadata"] == nested(16)
    too_deep: list[Fields] = [nested(17), {"a": [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}]
    for deep in too_deep:
        assert await fault_fields(office, {"name": "a", "mode": "oneshot", "interval": 5, "metadata": deep}) == [
            "metadata"
        ]


async def test_json_nested_beyond_reason_is_refused(office: Lifesign) -> None:
    body = b'{"name":"a","mode":"oneshot","interval":5,"metadata":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}"

    answer = await office.http.post("/v1/heartbeats", content=body)

    assert answer.status_code == 400


# Slugs --------------------------------------------------------------------------------------------------------------
async def test_a_name_taken_gets_the_next_number(office: Lifesign) -> None:
    slugs = [(await office.heartbeat("Nightly Export"))["slug"] for _ in range(3)]

    assert slugs == ["nightly-export", "nightly-export-2", "nightly-export-3"]


async def test_the_lowest_free_number_is_used_again(office: Lifesign) -> None:
    for _ in range(4):
        await office.heartbeat("Job")
    await office.ask("DELETE", "/v1/heartbeats/job-2", expect=204)

    assert (await office.heartbeat("Job"))["slug"] == "job-2"
    assert (await office.heartbeat("Job"))["slug"] == "job-5"


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Çafé Größe №5", "cafe-gro-e-no5"),
        ("!!!", "heartbeat"),
        ("火", "heartbeat"),
        ("--A--B--", "a-b"),
        ("x" * 150, "x" * 90),
        ("hb_thing", "hb-thing"),
    ],
)
async def test_a_slug_is_made_of_the_name(office: Lifesign, name: str, slug: str) -> None:
    assert (await office.heartbeat(name))["slug"] == slug


async def test_a_chosen_slug_that_is_taken_is_refused(office: Lifesign) -> None:
    await office.heartbeat("Nightly Export")

    details = await refused(
        office, "POST", "/v1/heartbeats", {"name": "b", "mode": "oneshot", "interval": 5, "slug": "nightly-export"}
    )

    assert details == [{"field": "slug", "message": "is taken by another heartbeat", "value": "nightly-export"}]


async def test_id_and_slug_lead_to_the_same_heartbeat(office: Lifesign) -> None:
    made = await office.heartbeat()

    assert await office.get("nightly-export") == await office.get(made["id"])
    await office.check_in("nightly-export")
    assert await office.event_types(made["id"]) == await office.event_types("nightly-export") == ["checkin", "created"]


async def test_a_deleted_heartbeat_leaves_its_slug_free(office: Lifesign) -> None:
    await office.heartbeat()
    await office.ask("DELETE", "/v1/heartbeats/nightly-export", expect=204)

    again = await office.heartbeat("Another", slug="nightly-export")

    assert (await office.get("nightly-export"))["id"] == again["id"]
    assert await office.event_types("nightly-export") == ["created"]


async def test_a_new_name_leaves_the_slug(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]

    changed = await office.ask("PATCH", f"/v1/heartbeats/{ref}", {"name": "Weekly Export"})

    assert (changed["name"], changed["slug"]) == ("Weekly Export", "nightly-export")


async def test_a_slug_may_be_changed_and_cleared(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    await office.heartbeat("Taken")

    details = await refused(office, "PATCH", f"/v1/heartbeats/{ref}", {"slug": "taken"})
    assert details == [{"field": "slug", "message": "is taken by another heartbeat", "value": "taken"}]
    assert (await office.ask("PATCH", f"/v1/heartbeats/{ref}", {"slug": "moved"}))["slug"] == "moved"
    await office.ask("GET", "/v1/heartbeats/nightly-export", expect=404)
    assert "slug" not in await office.ask("PATCH", f"/v1/heartbeats/{ref}", {"slug": None})
    await office.ask("GET", "/v1/heartbeats/moved", expect=404)
    await office.check_in(ref)


async def test_fifty_heartbeats_of_one_name_at_once_get_fifty_slugs(office: Lifesign) -> None:
    made = await asyncio.gather(*(office.heartbeat("Same Name") for _ in range(50)))

    assert sorted(each["slug"] for each in made) == sorted(["same-name", *(f"same-name-{n}" for n in range(2, 51))])
    assert len({each["id"] for each in made}) == 50


async def test_of_many_creations_with_one_chosen_slug_one_succeeds(office: Lifesign) -> None:
    body = {"name": "a", "mode": "oneshot", "interval": 5, "slug": "chosen"}

    answers = await asyncio.gather(*(office.http.post("/v1/heartbeats", json=body) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] + [400] * 19


async def test_of_many_edits_to_one_slug_one_succeeds(office: Lifesign) -> None:
    refs = [(await office.heartbeat(f"Job {n}"))["id"] for n in range(20)]

    answers = await asyncio.gather(
        *(office.http.patch(f"/v1/heartbeats/{ref}", json={"slug": "chosen"}) for ref in refs)
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19


# How many -----------------------------------------------------------------------------------------------------------
@pytest.mark.asyncio(loop_scope="function")
async def test_a_project_has_room_for_so_many_heartbeats_only(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(max_heartbeats=3) as lifesign:
        made = await asyncio.gather(
            *(
                lifesign.http.post("/v1/heartbeats", json={"name": f"n{n}", "mode": "oneshot", "interval": 5})
                for n in range(12)
            )
        )
        assert sorted(answer.status_code for answer in made) == [201] * 3 + [403] * 9

        error = await lifesign.ask(
            "POST", "/v1/heartbeats", {"name": "x", "mode": "oneshot", "interval": 5}, expect=403
        )
        assert error["error"] == {
            "code": "FORBIDDEN",
            "message": "Heartbeat limit reached (3)",
            "statusCode": 403,
        }
        first = (await every_heartbeat(lifesign))[0]["id"]
        await lifesign.ask("DELETE", f"/v1/heartbeats/{first}", expect=204)
        await lifesign.heartbeat("Fits again")


# Lists --------------------------------------------------------------------------------------------------------------
async def pages(office: Lifesign, path: str, member: str, limit: int) -> list[list[Json]]:
    found: list[list[Json]] = []
    cursor = ""
    while True:
        page = await office.ask("GET", f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}")
        assert set(page) <= {member, "nextCursor"}
        found.append(page[member])
        if "nextCursor" not in page:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def test_five_heartbeats_come_in_pages_of_two(office: Lifesign) -> None:
    made = [(await office.heartbeat(f"Job {n}"))["id"] for n in range(5)]

    found = await pages(office, "/v1/heartbeats", "heartbeats", 2)

    assert [[each["id"] for each in page] for page in found] == [made[:2], made[2:4], made[4:]]


async def test_a_last_page_that_is_full_has_no_next(office: Lifesign) -> None:
    for n in range(4):
        await office.heartbeat(f"Job {n}")

    assert [len(page) for page in await pages(office, "/v1/heartbeats", "heartbeats", 2)] == [2, 2]


@pytest.mark.parametrize("kind", ["heartbeats", "policies", "channels", "keys", "events", "incidents", "notifications"])
async def test_a_bad_limit_or_cursor_is_refused(office: Lifesign, kind: str) -> None:
    path = f"heartbeats/{(await office.heartbeat())['id']}/events" if kind == "events" else kind
    bad = {"limit": ["0", "1001", "-1", "x", "", "1.0", "%D9%A1", "1e2"], "cursor": ["x", "", "eHh4", "%FF"]}

    for name, values in bad.items():
        for value in values:
            details = await refused(office, "GET", f"/v1/{path}?{name}={value}")
            assert [each["field"] for each in details] == [name], value


async def test_a_cursor_of_another_list_is_refused(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]
    await office.webhook(ledger.url + "/hook/none")
    for name in "ab":
        await office.policy({"channels": [channel]}, name=name)
        await office.ask("POST", "/v1/keys", {"name": name}, expect=201)
    ref, _ = [(await office.heartbeat(grace=0, interval=1, channels=[channel]))["id"] for _ in range(2)]
    await office.advance(2)
    lists = {
        kind: f"/v1/{path}?limit=1"
        for kind, path in {
            "heartbeats": "heartbeats",
            "policies": "policies",
            "channels": "channels",
            "keys": "keys",
            "events": f"heartbeats/{ref}/events",
            "incidents": "incidents",
            "notifications": "notifications",
        }.items()
    }
    cursors = {kind: (await office.ask("GET", path))["nextCursor"] for kind, path in lists.items()}

    for kind, path in lists.items():
        for other, cursor in cursors.items():
            answer = await office.http.get(f"{path}&cursor={cursor}")
            assert answer.status_code == (200 if kind == other else 400), (kind, other)


async def test_rows_that_come_and_go_never_shift_a_page(office: Lifesign) -> None:
    made = [(await office.heartbeat(f"Job {n}"))["id"] for n in range(6)]
    first = await office.ask("GET", "/v1/heartbeats?limit=2")
    # One of the page before, the cursor's own row, and one of the page to come are deleted; one is added.
    for gone in (made[0], made[1], made[3]):
        await office.ask("DELETE", f"/v1/heartbeats/{gone}", expect=204)
    added = (await office.heartbeat("Late"))["id"]

    rest = await office.ask("GET", f"/v1/heartbeats?limit=100&cursor={first['nextCursor']}")

    assert [each["id"] for each in first["heartbeats"]] == made[:2]
    assert [each["id"] for each in rest["heartbeats"]] == [made[2], made[4], made[5], added]


async def test_events_added_meanwhile_do_not_shift_older_pages(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    for n in range(4):
        await office.check_in(ref, metadata={"n": n})
    first = await office.ask("GET", f"/v1/heartbeats/{ref}/events?limit=2")
    await office.check_in(ref, metadata={"n": 4})

    second = await office.ask("GET", f"/v1/heartbeats/{ref}/events?limit=2&cursor={first['nextCursor']}")

    assert [each["metadata"]["metadata"]["n"] for each in first["events"]] == [3, 2]
    assert [each["metadata"]["metadata"]["n"] for each in second["events"]] == [1, 0]


async def test_without_a_limit_a_page_has_a_hundred_rows(office: Lifesign) -> None:
    await asyncio.gather(*(office.heartbeat(f"Job {n}") for n in range(101)))

    page = await office.ask("GET", "/v1/heartbeats")

    assert len(page["heartbeats"]) == 100
    assert "nextCursor" in page


async def names(office: Lifesign, query: str) -> list[str]:
    listed = await office.ask("GET", f"/v1/heartbeats?{query}")
    return [each["name"] for each in listed["heartbeats"]]


async def test_filters_select_and_intersect(office: Lifesign) -> None:
    await office.heartbeat("Nightly Export", namespace="billing", tags=["prod", "db"])
    await office.heartbeat("Hourly Import", namespace="billing", tags=["prod"])
    await office.heartbeat("Weekly Report", namespace="billing2", tags=["prod-eu", "db"])
    await office.heartbeat("ÄRGER 100%_x", slug="odd")
    await office.ask("POST", "/v1/heartbeats/hourly-import/pause")

    assert await names(office, "namespace=billing") == ["Nightly Export", "Hourly Import"]
    assert await names(office, "namespace=Billing") == []
    assert await names(office, "tag=prod") == ["Nightly Export", "Hourly Import"]
    assert await names(office, "tag=prod&tag=db") == ["Nightly Export"]
    assert await names(office, "tag=pro") == []
    assert await names(office, "tag=prod%20db") == []
    assert await names(office, "q=EXPORT") == ["Nightly Export"]
    assert await names(office, "q=ly-im") == ["Hourly Import"]
    assert await names(office, "q=ärger") == ["ÄRGER 100%_x"]
    assert await names(office, "q=%25_x") == ["ÄRGER 100%_x"]
    assert await names(office, "q=ly%25re") == []
    assert await names(office, "status=paused") == ["Hourly Import"]
    assert await names(office, "status=active&namespace=billing&tag=prod&q=nightly") == ["Nightly Export"]
    assert await names(office, "status=paused&tag=db") == []


async def test_filters_hold_across_pages(office: Lifesign) -> None:
    for n in range(6):
        await office.heartbeat(f"Job {n}", tags=["even" if n % 2 == 0 else "odd"])

    found = await pages(office, "/v1/heartbeats?tag=odd", "heartbeats", 2)

    assert [[each["name"] for each in page] for page in found] == [["Job 1", "Job 3"], ["Job 5"]]


@pytest.mark.parametrize("query", ["status=", "status=gone", "status=Active", "namespace=", "tag=", "tag=a&tag=", "q="])
async def test_a_filter_without_a_value_or_an_unknown_status_is_refused(office: Lifesign, query: str) -> None:
    details = await refused(office, "GET", f"/v1/heartbeats?{query}")

    assert [each["field"] for each in details] == [query.partition("=")[0]]


@pytest.mark.parametrize("kind", ["policies", "channels", "keys"])
async def test_other_lists_are_oldest_first_and_paged_as_well(office: Lifesign, kind: str, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none", name="n0"))["id"]
    bodies: dict[str, Fields] = {
        "policies": {"steps": [{"channels": [channel]}]},
        "channels": {"type": "email", "config": {"to": "a@example.org"}},
        "keys": {},
    }
    for n in range(1, 5):
        await office.ask("POST", f"/v1/{kind}", bodies[kind] | {"name": f"n{n}"}, expect=201)

    found = await pages(office, f"/v1/{kind}", kind, 2)

    expected = {
        "policies": [["n1", "n2"], ["n3", "n4"]],
        "channels": [["n0", "n1"], ["n2", "n3"], ["n4"]],
        "keys": [["admin", "n1"], ["n2", "n3"], ["n4"]],
    }
    assert [[each["name"] for each in page] for page in found] == expected[kind]


async def test_incidents_and_notifications_are_newest_first(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]
    refs = []
    for n in range(3):
        refs.append((await office.heartbeat(f"Job {n}", channels=[channel]))["id"])
        await office.check_in(refs[-1], healthy=False)
        await office.advance(1)

    for kind in ("incidents", "notifications"):
        found = await pages(office, f"/v1/{kind}", kind, 2)
        assert [[each["heartbeat"] for each in page] for page in found] == [[refs[2], refs[1]], [refs[0]]]
    await office.check_in(refs[1])
    listed = await office.ask("GET", "/v1/incidents?status=open")
    assert [each["heartbeat"] for each in listed["incidents"]] == [refs[2], refs[0]]
    listed = await office.ask("GET", f"/v1/incidents?status=resolved&heartbeat={refs[1]}")
    assert [each["resolution"] for each in listed["incidents"]] == ["checkin"]
