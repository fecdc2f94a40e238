"""A project under a name: made once, found again with its keys. Spec "Telemetry", sections 2.2 and 2.3."""

import asyncio
import re

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, func, select

from lifesign.auth import service as auth
from lifesign.db.schema import api_keys, project_names, projects
from tests.harness import Json, Lifesign, MakeLifesign
from tests.projects.visitors import SECRET, code_of, new_name, visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHAPE = {
    "ok",
    "project_id",
    "project_name",
    "tenant_id",
    "producer_key",
    "agent_key",
    "quota_spans",
    "expires_at",
    "ingest_url",
    "diagnose_url",
    "recovery_code",
    "dashboard_url",
}


async def test_a_free_name_becomes_a_permanent_project_with_two_keys(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        made = await someone.provision("  My Shop ")

    assert set(made) == SHAPE | {"resumed", "graduated"}
    assert re.fullmatch(r"my-shop-[0-9a-f]{8}", made["project_id"])
    assert re.fullmatch(r"lk_ingest_[A-Za-z0-9_-]{43}", made["producer_key"])
    assert re.fullmatch(r"lk_agent_[A-Za-z0-9_-]{43}", made["agent_key"])
    assert re.fullmatch(r"[0-9a-f]{64}", made["recovery_code"])
    assert {name: made[name] for name in SHAPE | {"resumed", "graduated"} if not name.endswith(("_key", "_code"))} == {
        "ok": True,
        "project_id": made["project_id"],
        "project_name": "My Shop",
        "tenant_id": "sandbox",
        "quota_spans": 1_000_000,
        "expires_at": None,
        "ingest_url": "http://lifesign.test/v1/traces",
        "diagnose_url": "http://lifesign.test/v1/runs/diagnose",
        "dashboard_url": f"http://lifesign.test/dashboard?project={made['project_id']}",
        "resumed": False,
        "graduated": True,
    }


async def test_the_agent_key_finds_the_project_again_and_is_shown_its_recovery_code(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        made = await someone.provision("Found Again")

        again = await someone.provision("found again", key=made["agent_key"], expect=200)
        third = await someone.provision("found again", key=made["agent_key"], expect=200)

    assert again == third
    without_keys = {name: value for name, value in made.items() if name not in {"producer_key", "agent_key"}}
    assert again == without_keys | {"resumed": True}


async def test_the_producer_key_finds_the_project_again_without_its_recovery_code(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        name = new_name()
        made = await someone.provision(name)

        again = await someone.provision(name, key=made["producer_key"], expect=200)

    hidden = {"producer_key", "agent_key", "recovery_code"}
    assert again == {name: value for name, value in made.items() if name not in hidden} | {"resumed": True}


@pytest.mark.parametrize("written", ["My App {}", "my-app-{}", " MY  APP\t{} ", "\uff2dy\uff3fApp {}", "my.app/{}"])
async def test_names_that_mean_the_same_are_the_same_project(shared_node: Lifesign, written: str) -> None:
    async with visitor(shared_node) as someone:
        name = new_name().rpartition(" ")[2]
        made = await someone.provision(f"My App {name}")

        again = await someone.provision(written.format(name), key=made["agent_key"], expect=200)

    assert again["project_id"] == made["project_id"]
    assert again["project_name"] == f"My App {name}"


async def test_the_same_name_of_two_operators_is_two_projects(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        name = new_name()
        made = [
            await someone.provision(name),
            await someone.provision(name, operator="Ann"),
            await someone.provision(name, operator="Bob"),
        ]
        again = await someone.provision(name, operator=" ANN ", key=made[1]["agent_key"], expect=200)
        nobodys = await someone.provision(name, operator="", key=made[0]["agent_key"], expect=200)

    assert len({each["project_id"] for each in made}) == 3
    assert again["project_id"] == made[1]["project_id"]
    assert nobodys["project_id"] == made[0]["project_id"]


async def test_names_in_other_letters_are_told_apart(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        made = [await someone.provision(name) for name in ("проект один", "проект два", "プロジェクト", "Straße 1")]
        again = await someone.provision("STRASSE 1", key=made[3]["agent_key"], expect=200)

    assert [each["project_id"].rpartition("-")[0] for each in made] == ["project", "project", "project", "strasse-1"]
    assert again["project_id"] == made[3]["project_id"]


async def test_a_taken_name_needs_a_key_of_the_project(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        name = new_name()
        made = await someone.provision(name)
        other = await someone.provision()
        admin = (await shared_node.ask("POST", "/v1/keys", {"name": "k"}, expect=201))["token"]

        answers = [
            await someone.ask("POST", "/v1/provision", {"project_name": name}, key=key)
            for key in (None, "", "Basic abc", "no-such-key", other["agent_key"], admin)
        ]

    told = [(each.status_code, each.json()["error"], each.json()["message"]) for each in answers]
    missing = (401, "missing_key", "Authorization: Bearer <key> is required")
    unknown = (401, "invalid_key", "This key is not known")
    foreign = (403, "not_project_key", "The provided key does not authorize this project")
    assert told == [missing, unknown, unknown, unknown, foreign, foreign]
    assert {each.headers.get("www-authenticate") for each in answers[:4]} == {'Bearer realm="lifesign"'}
    secrets = (made["producer_key"], made["agent_key"], made["recovery_code"], made["project_id"])
    assert [each for answer in answers for each in secrets if each in answer.text] == []


async def test_a_key_of_the_project_that_was_made_for_another_api_does_not_find_it(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        name = new_name()
        made = await someone.provision(name)
        other = await shared_node.node.db.write(_jobs_key, made["project_id"], shared_node)

        assert await someone.refused("POST", "/v1/provision", {"project_name": name}, key=other) == (
            403,
            "not_project_key",
        )


def _jobs_key(conn: Connection, project_id: str, lifesign: Lifesign) -> str:
    caller = auth.operator(project_id)
    return auth.create_key(conn, caller, name="jobs", scopes=["*"], expires_at=None, now=lifesign.now())[1]


async def test_a_key_is_ignored_where_the_name_is_free(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        assert (await someone.provision(key="nonsense"))["resumed"] is False


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "project_name_required"),
        ({"project_name": ""}, "project_name_required"),
        ({"project_name": "  "}, "project_name_required"),
        ({"project_name": 5}, "project_name_required"),
        ({"project_name": None}, "project_name_required"),
        ({"project_name": []}, "project_name_required"),
        ({"project_name": "x" * 101}, "project_name_invalid"),
        ({"project_name": "---"}, "project_name_invalid"),
        ({"project_name": "\u2603"}, "project_name_invalid"),
        ({"project_name": "a\x00b"}, "project_name_invalid"),
        ({"project_name": "x", "operator": "---"}, "operator_invalid"),
        ({"project_name": "x", "operator": "  "}, "operator_invalid"),
        ({"project_name": "x", "operator": "y" * 101}, "operator_invalid"),
        ({"project_name": "x", "operator": 7}, "operator_invalid"),
        ([], "invalid_json"),
        ("x", "invalid_json"),
    ],
)
async def test_a_name_that_is_none_is_refused(shared_node: Lifesign, body: object, error: str) -> None:
    async with visitor(shared_node) as someone:
        assert await someone.refused("POST", "/v1/provision", body) == (400, error)


@pytest.mark.parametrize("content", [b"", b"{", b'{"project_name": "x"', b"\xff\xfe", b"nonsense"])
async def test_what_is_no_json_is_refused(shared_node: Lifesign, content: bytes) -> None:
    async with visitor(shared_node) as someone:
        answer = await someone.http.post("/v1/provision", content=content)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_json")


async def test_the_longest_name_is_taken_and_blanks_around_it_do_not_count(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        made = await someone.provision(" " * 50 + "x" * 100 + "\n")

    assert made["project_name"] == "x" * 100
    assert made["project_id"].rpartition("-")[0] == "x" * 40


async def test_a_name_that_grows_when_it_is_normalised_fits_every_index(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        long = "\ufdfa" * 100
        made = await someone.provision(long)
        again = await someone.provision(long, key=made["agent_key"], expect=200)
        other = await someone.provision("\ufdfa" * 99)

    assert again["project_id"] == made["project_id"] != other["project_id"]


async def test_any_content_type_is_read_as_json(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        answer = await someone.http.post(
            "/v1/provision", content=b'{"project_name": "typed"}', headers={"Content-Type": "text/plain"}
        )

    assert answer.status_code == 201


async def test_a_body_is_at_most_64_kib(shared_node: Lifesign) -> None:
    async with visitor(shared_node) as someone:
        room = 65_536 - len(b'{"project_name": "", "a": ""}') - len("wide")
        whole = await someone.http.post("/v1/provision", content=f'{{"project_name": "wide", "a": "{"x" * room}"}}')
        more = await someone.http.post(
            "/v1/provision", content=f'{{"project_name": "wide", "a": "{"x" * (room + 1)}"}}'
        )

    assert whole.status_code == 201
    assert (more.status_code, more.json()["error"]) == (413, "body_too_large")


async def _rows(lifesign: Lifesign) -> tuple[int, int, int]:
    """How many projects, names and keys there are."""
    counts = [select(func.count()).select_from(table) for table in (projects, project_names, api_keys)]
    found = await lifesign.node.db.read(lambda conn: [conn.scalar(each) or 0 for each in counts])
    return (found[0], found[1], found[2])


async def test_of_twenty_at_once_one_gets_the_name(shared_node: Lifesign) -> None:
    before = await _rows(shared_node)
    async with visitor(shared_node) as someone:
        name = new_name()

        answers = await asyncio.gather(
            *(someone.ask("POST", "/v1/provision", {"project_name": name}) for _ in range(20))
        )

    statuses = sorted(each.status_code for each in answers)
    assert statuses[0] == 201
    assert set(statuses[1:]) <= {401, 409}
    assert all(each.json()["error"] == "name_claimed" for each in answers if each.status_code == 409)
    after = await _rows(shared_node)
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 2]


async def test_whoever_is_too_late_is_not_charged(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(mint_limit_per_hour=2) as lifesign, visitor(lifesign) as someone:
        answers = await asyncio.gather(
            *(someone.ask("POST", "/v1/provision", {"project_name": "one"}) for _ in range(20))
        )
        assert {each.status_code for each in answers} <= {201, 401, 409}

        await someone.provision("two")
        assert await someone.refused("POST", "/v1/provision", {"project_name": "three"}) == (429, "mint_rate_limited")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_of_twenty_at_once_on_two_nodes_one_gets_the_name(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as first, start_lifesign() as second:
        async with visitor(first) as here, visitor(second) as there:
            answers = await asyncio.gather(
                *(
                    each.ask("POST", "/v1/provision", {"project_name": "one"})
                    for _ in range(10)
                    for each in (here, there)
                )
            )

            [made] = [each.json() for each in answers if each.status_code == 201]
            again = await there.provision("one", key=made["agent_key"], expect=200)
        assert {each.status_code for each in answers} <= {201, 401, 409}
        assert again["project_id"] == made["project_id"]
        assert (await _rows(first))[:2] == (2, 1)


# Settings -----------------------------------------------------------------------------------------------------------
async def test_the_recovery_code_is_made_from_the_secret_and_the_project_id(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(signup_upgrade_secret=SecretStr(SECRET)) as lifesign, visitor(lifesign) as someone:
        made = await someone.provision()

    assert made["recovery_code"] == code_of(SECRET, f"recover:{made['project_id']}")


@pytest.mark.parametrize("word", ["off", "OFF", " Off "])
async def test_without_a_secret_projects_expire_and_have_no_code(start_lifesign: MakeLifesign, word: str) -> None:
    async with start_lifesign(signup_upgrade_secret=SecretStr(word)) as lifesign, visitor(lifesign) as someone:
        name = new_name()
        made = await someone.provision(name)
        again = await someone.provision(name, key=made["agent_key"], expect=200)

    assert (made["graduated"], made["recovery_code"]) == (False, None)
    assert made["expires_at"] == "2026-01-19T12:00:00.000Z"
    assert (again["graduated"], again["recovery_code"], again["expires_at"]) == (False, None, made["expires_at"])


async def test_a_sandbox_that_is_found_again_stays_once_the_server_lets_it(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(provision_auto_graduate=False, sandbox_days=2) as lifesign, visitor(lifesign) as someone:
        made = await someone.provision("shop")
        same = await someone.provision("shop", key=made["agent_key"], expect=200)
    async with start_lifesign() as lifesign, visitor(lifesign) as someone:
        again = await someone.provision("shop", key=made["producer_key"], expect=200)
        await lifesign.advance(3 * 24 * 3600)
        later = await someone.provision("shop", key=made["agent_key"], expect=200)

    assert made["expires_at"] == same["expires_at"] == "2026-01-07T12:00:00.000Z"
    assert (made["graduated"], same["graduated"], again["graduated"]) == (False, False, True)
    assert again["expires_at"] is later["expires_at"] is None


async def test_the_key_of_an_expired_sandbox_does_not_find_it(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(provision_auto_graduate=False) as lifesign, visitor(lifesign) as someone:
        made = await someone.provision("shop")
        await lifesign.advance(14 * 24 * 3600 - 1)
        await someone.provision("shop", key=made["agent_key"], expect=200)
        await lifesign.advance(1)

        answer = await someone.told(
            "POST", "/v1/provision", {"project_name": "shop"}, key=made["agent_key"], expect=401
        )

    assert answer == {
        "ok": False,
        "error": "expired_key",
        "message": "This key expired at 2026-01-19T12:00:00.000Z",
    }


async def test_addresses_are_those_of_the_public_url_where_one_is_set(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(public_url="https://lifesign.example.org") as lifesign, visitor(lifesign) as someone:
        made = await someone.provision()

    urls: Json = {name: made[name] for name in ("ingest_url", "diagnose_url", "dashboard_url")}
    assert urls == {
        "ingest_url": "https://lifesign.example.org/v1/traces",
        "diagnose_url": "https://lifesign.example.org/v1/runs/diagnose",
        "dashboard_url": f"https://lifesign.example.org/dashboard?project={made['project_id']}",
    }


async def test_the_quota_is_the_one_that_is_set(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(quota_spans=0) as lifesign, visitor(lifesign) as someone:
        assert (await someone.provision())["quota_spans"] == 0
