"""Who may call a route of the Telemetry API. Spec "Telemetry", section 1."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth import service as auth
from lifesign.auth.service import telemetry_caller
from lifesign.http.answers import json_answer
from tests.harness import Json, Lifesign, MakeLifesign
from tests.projects.visitors import Visitor, visitor, with_route

SCOPES = ("telemetry:write", "telemetry:read", "runs:write", "dashboard:read", "reports:read")
DAY_S = 24 * 3600


async def _whoami(request: Request) -> Response:
    caller = await telemetry_caller(request, request.query_params["scope"])
    return json_answer({"project_id": caller.project_id, "kind": caller.kind})


@asynccontextmanager
async def asking(lifesign: Lifesign) -> AsyncIterator[Visitor]:
    """Somebody who can ask a route under this API's prefix for any scope."""
    async with visitor(lifesign) as someone:
        with with_route(lifesign, "/v1/telemetry/whoami", _whoami):
            yield someone


async def asked(someone: Visitor, scope: str, key: str | None) -> tuple[int, Json]:
    answer = await someone.ask("GET", f"/v1/telemetry/whoami?scope={scope}", key=key)
    return answer.status_code, answer.json()


async def allowed(someone: Visitor, key: str) -> list[str]:
    """The scopes that a key holds."""
    return [scope for scope in SCOPES if (await asked(someone, scope, key))[0] == 200]


async def made_key(lifesign: Lifesign, project_id: str, *scopes: str) -> str:
    caller = auth.operator(project_id)
    made = await lifesign.node.db.write(
        auth.create_key, caller, name="k", scopes=scopes, expires_at=None, now=lifesign.now()
    )
    return made[1]


async def test_each_of_the_two_keys_does_its_own(lifesign: Lifesign) -> None:
    async with asking(lifesign) as someone:
        made = await someone.provision()

        assert await allowed(someone, made["producer_key"]) == ["telemetry:write"]
        assert await allowed(someone, made["agent_key"]) == [
            "telemetry:read",
            "runs:write",
            "dashboard:read",
            "reports:read",
        ]
        assert await asked(someone, "telemetry:write", made["producer_key"]) == (
            200,
            {"project_id": made["project_id"], "kind": "producer"},
        )


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_of_another_kind_counts_by_its_scopes(lifesign: Lifesign, scope: str) -> None:
    async with asking(lifesign) as someone:
        made = await someone.provision()

        assert await allowed(someone, await made_key(lifesign, made["project_id"], scope)) == [scope]


async def test_the_admin_key_holds_every_scope_of_the_default_project(lifesign: Lifesign) -> None:
    async with asking(lifesign) as someone:
        admin = (await lifesign.ask("POST", "/v1/keys", {"name": "k"}, expect=201))["token"]
        made = await someone.provision()

        assert await allowed(someone, admin) == list(SCOPES)
        assert (await asked(someone, "telemetry:read", admin))[1]["project_id"] != made["project_id"]


async def test_keys_that_do_not_count_are_told_why(lifesign: Lifesign) -> None:
    async with asking(lifesign) as someone:
        gone = await someone.provision()
        await someone.told(
            "POST", "/v1/recover", {"project_id": gone["project_id"], "recovery_code": gone["recovery_code"]}
        )
        other = await someone.provision()
        sandbox = await someone.sign_up()
        await lifesign.advance(14 * DAY_S)

        told = [
            await asked(someone, scope, key)
            for scope, key in (
                ("telemetry:read", None),
                ("telemetry:read", ""),
                ("telemetry:read", "Basic bGs6bGs="),
                ("telemetry:read", "Bearer "),
                ("telemetry:read", "lk_agent_" + "A" * 43),
                ("telemetry:read", gone["agent_key"]),
                ("telemetry:write", gone["agent_key"]),
                ("telemetry:read", sandbox["agent_key"]),
                ("telemetry:read", sandbox["producer_key"]),
                ("telemetry:read", other["producer_key"]),
                ("telemetry:write", other["agent_key"]),
            )
        ]

    assert [status for status, _ in told] == [401] * 11
    unknown = ("invalid_key", "This key is not known")
    revoked = ("revoked_key", "This key was revoked")
    expired = ("expired_key", "This key expired at 2026-01-19T12:00:00.000Z")
    assert [(body["error"], body["message"]) for _, body in told] == [
        ("missing_key", "Authorization: Bearer <key> is required"),
        unknown,
        unknown,
        unknown,
        unknown,
        revoked,
        revoked,
        expired,
        expired,
        ("wrong_key_kind", "This route needs an agent key"),
        ("wrong_key_kind", "This route needs a producer key"),
    ]


async def test_a_refusal_names_its_realm(lifesign: Lifesign) -> None:
    async with asking(lifesign) as someone:
        made = await someone.provision()
        answers = [
            await someone.ask("GET", "/v1/telemetry/whoami?scope=telemetry:read", key=key)
            for key in (None, "nonsense", made["producer_key"])
        ]

    assert {each.headers["www-authenticate"] for each in answers} == {'Bearer realm="lifesign"'}


async def test_a_key_anywhere_but_in_the_header_is_none(lifesign: Lifesign) -> None:
    async with asking(lifesign) as someone:
        key = (await someone.provision())["agent_key"]
        path = f"/v1/telemetry/whoami?scope=telemetry:read&key={key}&access_token={key}&authorization=Bearer%20{key}"

        assert await someone.refused("GET", path, {"key": key}) == (401, "missing_key")


async def test_what_the_operator_revokes_is_revoked_from_the_next_request_on(lifesign: Lifesign) -> None:
    async with asking(lifesign) as someone:
        made = await someone.provision()
        admin = await made_key(lifesign, made["project_id"], "*")
        assert (await asked(someone, "telemetry:read", made["agent_key"]))[0] == 200
        async with lifesign.client(admin) as client:
            listed = (await client.get("/v1/keys")).json()["keys"]
            [agent] = [each for each in listed if each["name"] == "agent"]

            assert (await client.delete(f"/v1/keys/{agent['id']}")).status_code == 204

            status, told = await asked(someone, "telemetry:read", made["agent_key"])
            assert (status, told["error"]) == (401, "revoked_key")
            assert [each["name"] for each in (await client.get("/v1/keys")).json()["keys"]] == ["producer", "k"]


async def test_keys_of_a_project_are_not_those_of_another_projects_admin(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        made = await someone.provision()

    assert [each["name"] for each in (await lifesign.ask("GET", "/v1/keys"))["keys"]] == ["admin"]
    async with lifesign.client(made["agent_key"]) as client:
        assert (await client.get("/v1/keys")).status_code == 403
        assert (await client.get("/v1/heartbeats")).status_code == 403


async def test_other_apis_say_no_more_of_a_revoked_key_than_before(lifesign: Lifesign) -> None:
    made = await lifesign.ask("POST", "/v1/keys", {"name": "k"}, expect=201)
    await lifesign.ask("DELETE", f"/v1/keys/{made['id']}", expect=204)
    async with lifesign.client(made["token"]) as client:
        heartbeats, systems = await client.get("/v1/heartbeats"), await client.get("/api/systems")

    assert heartbeats.status_code == systems.status_code == 401
    assert heartbeats.json()["error"]["message"] == "Missing or invalid API key"
    assert heartbeats.headers["www-authenticate"] == "Bearer"
    assert systems.json() == {"code": 401, "message": "invalid token", "data": None}


async def test_an_admin_key_that_was_revoked_is_good_again_when_it_is_chosen_again(
    start_lifesign: MakeLifesign,
) -> None:
    async with start_lifesign() as lifesign:
        [admin] = (await lifesign.ask("GET", "/v1/keys"))["keys"]
        await lifesign.ask("DELETE", f"/v1/keys/{admin['id']}", expect=204)
        await lifesign.ask("GET", "/v1/keys", expect=401)

    async with start_lifesign() as lifesign:
        assert [each["name"] for each in (await lifesign.ask("GET", "/v1/keys"))["keys"]] == ["admin"]
