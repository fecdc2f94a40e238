"""Sandboxes, and the code that lets them stay. Spec "Telemetry", sections 2.4 and 2.5."""

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from lifesign.auth import service as auth
from lifesign.clock import EpochMs
from lifesign.db.schema import api_keys
from tests.harness import Lifesign, MakeLifesign
from tests.projects.visitors import SECRET, code_of, visitor

DAY_S = 24 * 3600
UPGRADE = "/v1/signup/upgrade"


def upgrade_code(project_id: str) -> str:
    return code_of(SECRET, f"signup-upgrade:sandbox:{project_id}")


async def key_ends(lifesign: Lifesign, project_id: str) -> list[tuple[str | None, EpochMs | None]]:
    """Plan and expiry of each key of a project."""
    query = select(api_keys.c.plan, api_keys.c.expires_at).where(api_keys.c.project_id == project_id)
    return await lifesign.node.db.read(lambda conn: [(row.plan, row.expires_at) for row in conn.execute(query)])


async def test_every_sign_up_is_a_sandbox_of_its_own(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        first = await someone.sign_up(project_name="x")
        second = await someone.sign_up(project_name="x")

    keys = {each[name] for each in (first, second) for name in ("producer_key", "agent_key")}
    assert first["project_id"] != second["project_id"]
    assert len(keys) == 4
    assert first["expires_at"] == second["expires_at"] == "2026-01-19T12:00:00.000Z"
    assert set(first) == {
        *("ok", "project_id", "project_name", "tenant_id", "producer_key", "agent_key", "quota_spans", "expires_at"),
        *("ingest_url", "diagnose_url", "recovery_code", "dashboard_url"),
    }
    assert (first["project_name"], first["tenant_id"]) == ("x", "sandbox")


@pytest.mark.parametrize("content", [b"", b" \n", b"{}", b'{"project_name": null}'])
async def test_a_sandbox_needs_no_name(lifesign: Lifesign, content: bytes) -> None:
    async with visitor(lifesign) as someone:
        answer = await someone.http.post("/v1/signup", content=content)

    assert answer.status_code == 201
    assert answer.json()["project_name"] == "project"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"project_name": " "}, "project_name_required"),
        ({"project_name": 7}, "project_name_required"),
        ({"project_name": "..."}, "project_name_invalid"),
        ([], "invalid_json"),
    ],
)
async def test_a_bad_name_is_refused(lifesign: Lifesign, body: object, error: str) -> None:
    async with visitor(lifesign) as someone:
        assert await someone.refused("POST", "/v1/signup", body) == (400, error)


async def test_a_sandbox_does_not_take_its_name(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        await someone.sign_up(project_name="shop")

        assert (await someone.provision("shop"))["resumed"] is False


async def test_the_right_code_lets_a_sandbox_and_its_keys_stay(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(signup_upgrade_secret=SecretStr(SECRET), quota_spans=500) as lifesign,
        visitor(lifesign) as someone,
    ):
        made = await someone.sign_up(project_name="shop")
        assert await key_ends(lifesign, made["project_id"]) == [("sandbox", lifesign.now() + 14 * DAY_S * 1000)] * 2
        body = {"code": f" {upgrade_code(made['project_id']).upper()}\n", "agent_key": "mine", "producer_key": 7}

        answer = await someone.told("POST", UPGRADE, body, key=made["agent_key"])
        again = await someone.told("POST", UPGRADE, body, key=made["agent_key"])

        assert answer == again
        assert answer == {
            "ok": True,
            "project_id": made["project_id"],
            "tenant_id": "sandbox",
            "kind": "agent",
            "key_prefix": made["agent_key"][:12],
            "scopes": ["runs:write", "telemetry:read", "dashboard:read", "reports:read"],
            "quota_spans": 500,
            "expires_at": None,
            "graduated": True,
            "keys_upgraded": 2,
        }
        assert await key_ends(lifesign, made["project_id"]) == [(None, None)] * 2
        await lifesign.advance(60 * DAY_S)
        assert (await someone.told("POST", UPGRADE, body, key=made["agent_key"]))["graduated"] is True


async def test_an_upgrade_leaves_keys_for_other_apis_their_own_end(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(signup_upgrade_secret=SecretStr(SECRET)) as lifesign, visitor(lifesign) as someone:
        made = await someone.sign_up()
        caller, soon = auth.operator(made["project_id"]), EpochMs(lifesign.now() + 1000)
        await lifesign.node.db.write(
            auth.create_key, caller, name="jobs", scopes=["checkins:write"], expires_at=soon, now=lifesign.now()
        )

        await someone.told("POST", UPGRADE, {"code": upgrade_code(made["project_id"])}, key=made["agent_key"])

        assert sorted(await key_ends(lifesign, made["project_id"]), key=str) == [
            (None, soon),
            (None, None),
            (None, None),
        ]


async def test_an_upgrade_is_refused_for_the_first_reason_of_several(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(signup_upgrade_secret=SecretStr(SECRET)) as lifesign, visitor(lifesign) as someone:
        made = await someone.sign_up()
        agent, producer = made["agent_key"], made["producer_key"]
        admin = (await lifesign.ask("POST", "/v1/keys", {"name": "k"}, expect=201))["token"]
        other = await someone.sign_up()

        refusals = [
            await someone.refused("POST", UPGRADE, {}, key=None),
            await someone.refused("POST", UPGRADE, {}, key=producer),
            await someone.refused("POST", UPGRADE, [], key=agent),
            await someone.refused("POST", UPGRADE, {}, key=agent),
            await someone.refused("POST", UPGRADE, {"code": 5}, key=agent),
            await someone.refused("POST", UPGRADE, {"code": " "}, key=agent),
            await someone.refused("POST", UPGRADE, {"code": "x"}, key=admin),
            await someone.refused("POST", UPGRADE, {"code": "x"}, key=agent),
            await someone.refused("POST", UPGRADE, {"code": "é" * 64}, key=agent),
            await someone.refused("POST", UPGRADE, {"code": upgrade_code(other["project_id"])}, key=agent),
            await someone.refused("POST", UPGRADE, {"code": made["recovery_code"]}, key=agent),
        ]

    assert refusals == [
        (401, "missing_key"),
        (401, "wrong_key_kind"),
        (400, "invalid_json"),
        (400, "code_required"),
        (400, "code_required"),
        (400, "code_required"),
        (403, "not_sandbox"),
        (403, "invalid_code"),
        (403, "invalid_code"),
        (403, "invalid_code"),
        (403, "invalid_code"),
    ]


async def test_without_a_secret_nothing_can_be_upgraded_or_recovered(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(signup_upgrade_secret=SecretStr("off")) as lifesign, visitor(lifesign) as someone:
        made = await someone.sign_up()

        assert made["recovery_code"] is None
        assert await someone.refused("POST", UPGRADE, [], key=made["agent_key"]) == (503, "upgrade_unavailable")
        assert await someone.refused("POST", UPGRADE, {}) == (401, "missing_key")
        assert await someone.refused("POST", "/v1/recover", []) == (503, "recovery_unavailable")
