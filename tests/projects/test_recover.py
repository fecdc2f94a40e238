"""New keys for whoever has the recovery code. Spec "Telemetry", section 2.6."""

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from lifesign.auth import service as auth
from lifesign.db.schema import projects
from tests.harness import Json, Lifesign, MakeLifesign
from tests.projects.visitors import SECRET, Visitor, code_of, new_name, visitor

DAY_S = 24 * 3600


@pytest.fixture
def secret() -> dict[str, object]:
    return {"signup_upgrade_secret": SecretStr(SECRET)}


def recovery(made: Json) -> Json:
    return {"project_id": made["project_id"], "recovery_code": made["recovery_code"]}


async def state_of(someone: Visitor, name: str, key: str) -> tuple[int, str]:
    """How a key of the project `name` is received."""
    answer = await someone.ask("POST", "/v1/provision", {"project_name": name}, key=key)
    return answer.status_code, answer.json().get("error", "")


async def test_the_code_gets_new_keys_and_those_before_them_are_revoked_at_once(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        name = new_name()
        made = await someone.provision(name)
        assert await state_of(someone, name, made["producer_key"]) == (200, "")

        got = await someone.told("POST", "/v1/recover", recovery(made))

        assert set(got) == {
            *("ok", "project_id", "producer_key", "agent_key", "quota_spans", "expires_at", "dashboard_url")
        }
        assert (got["project_id"], got["quota_spans"], got["expires_at"]) == (made["project_id"], 1_000_000, None)
        assert got["dashboard_url"] == made["dashboard_url"]
        assert {got["producer_key"], got["agent_key"]}.isdisjoint({made["producer_key"], made["agent_key"]})
        assert await state_of(someone, name, made["producer_key"]) == (401, "revoked_key")
        assert await state_of(someone, name, made["agent_key"]) == (401, "revoked_key")
        again = await someone.provision(name, key=got["agent_key"], expect=200)
        assert again["recovery_code"] == made["recovery_code"]


async def test_the_same_code_works_again_and_in_any_spelling(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        name = new_name()
        made = await someone.provision(name)
        spelled = {"project_id": f" {made['project_id']}\n", "recovery_code": f"\t{made['recovery_code'].upper()} "}

        first = await someone.told("POST", "/v1/recover", spelled)
        second = await someone.told("POST", "/v1/recover", recovery(made))

        assert await state_of(someone, name, first["agent_key"]) == (401, "revoked_key")
        assert await state_of(someone, name, second["agent_key"]) == (200, "")


async def test_of_two_recoveries_at_once_the_later_pair_alone_works(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        name = new_name()
        made = await someone.provision(name)

        got = await asyncio.gather(*(someone.told("POST", "/v1/recover", recovery(made)) for _ in range(5)))

        states = [
            (await state_of(someone, name, each[kind]))[0] for each in got for kind in ("producer_key", "agent_key")
        ]
        assert sorted(states) == [200] * 2 + [401] * 8


async def test_a_wrong_code_says_the_same_of_a_project_and_of_none(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        made = await someone.provision()
        other = await someone.provision()

        answers = [
            await someone.ask("POST", "/v1/recover", {"project_id": project_id, "recovery_code": code})
            for project_id in (made["project_id"], "nobody-00000000", "default", "a\x00b", "x" * 60_000)
            for code in ("0" * 64, other["recovery_code"], "ü")
        ]

    assert {(each.status_code, each.content) for each in answers} == {
        (403, b'{"ok":false,"error":"invalid_recovery_code","message":"Recovery code verification failed"}')
    }


async def test_the_right_code_of_no_project_finds_none(start_lifesign: MakeLifesign, secret: Json) -> None:
    async with start_lifesign(**secret) as lifesign, visitor(lifesign) as someone:
        for project_id in ("nobody-00000000", "a\x00b", "x" * 40_000):
            body = {"project_id": project_id, "recovery_code": code_of(SECRET, f"recover:{project_id}")}
            assert await someone.refused("POST", "/v1/recover", body) == (404, "project_not_found")


async def test_the_default_project_cannot_be_recovered(start_lifesign: MakeLifesign, secret: Json) -> None:
    async with start_lifesign(**secret) as lifesign, visitor(lifesign) as someone:
        [listed] = (await lifesign.ask("GET", "/v1/keys"))["keys"]
        project_id = await lifesign.node.db.read(lambda conn: conn.scalar(select(projects.c.id)))
        body = {"project_id": project_id, "recovery_code": code_of(SECRET, f"recover:{project_id}")}

        assert await someone.refused("POST", "/v1/recover", body) == (403, "not_sandbox")
        assert (await lifesign.ask("GET", "/v1/keys"))["keys"][0]["id"] == listed["id"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"project_id": "a"},
        {"recovery_code": "b"},
        {"project_id": "", "recovery_code": "b"},
        {"project_id": "a", "recovery_code": "  "},
        {"project_id": 1, "recovery_code": "b"},
        {"project_id": "a", "recovery_code": ["b"]},
        {"project_id": None, "recovery_code": None},
    ],
)
async def test_both_fields_are_needed(lifesign: Lifesign, body: Json) -> None:
    async with visitor(lifesign) as someone:
        answer = await someone.told("POST", "/v1/recover", body, expect=400)

    assert answer["error"] == "recovery_fields_required"
    assert answer["message"] == "project_id and recovery_code are required"


async def test_the_keys_of_an_expired_sandbox_are_expired_as_well(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        made = await someone.sign_up()
        await lifesign.advance(20 * DAY_S)

        got = await someone.told("POST", "/v1/recover", recovery(made))

        assert got["expires_at"] == made["expires_at"] == "2026-01-19T12:00:00.000Z"
        refusal = await someone.refused("POST", "/v1/signup/upgrade", {}, key=got["agent_key"])
        assert refusal == (401, "expired_key")


async def test_a_recovery_takes_back_keys_for_other_apis_too(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        made = await someone.provision()
        caller = auth.operator(made["project_id"])
        _, jobs = await lifesign.node.db.write(
            auth.create_key, caller, name="jobs", scopes=["*"], expires_at=None, now=lifesign.now()
        )
        async with lifesign.client(jobs) as client:
            assert (await client.get("/v1/heartbeats")).status_code == 200
            await someone.told("POST", "/v1/recover", recovery(made))

            assert (await client.get("/v1/heartbeats")).status_code == 401


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_what_one_node_recovers_the_other_knows_at_once(start_lifesign: MakeLifesign, secret: Json) -> None:
    async with (
        start_lifesign(**secret) as first,
        start_lifesign(**secret) as second,
        visitor(first) as here,
        visitor(second) as there,
    ):
        made = await here.provision("shop")
        assert await state_of(there, "shop", made["agent_key"]) == (200, "")

        got = await here.told("POST", "/v1/recover", recovery(made))

        assert await state_of(there, "shop", made["agent_key"]) == (401, "revoked_key")
        assert await there.refused("POST", "/v1/signup/upgrade", {}, key=made["agent_key"]) == (401, "revoked_key")
        assert await state_of(there, "shop", got["agent_key"]) == (200, "")
