"""How many projects and recoveries an hour takes, and from whom. Spec "Telemetry", section 2.7."""

import asyncio
import ipaddress

import pytest
from pydantic import ValidationError
from sqlalchemy import Table, func, select

from lifesign.clock import EpochMs
from lifesign.db.schema import limited_calls, projects
from lifesign.http.peer import network_name
from lifesign.projects import rules
from lifesign.settings import Settings
from tests.harness import Json, Lifesign, MakeLifesign
from tests.projects.visitors import Visitor, visitor

HOUR_S = 3600


async def signs_up(someone: Visitor, **headers: str) -> int:
    """The status of a sign-up."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await someone.http.post("/v1/signup", headers=named)).status_code


async def count_of(lifesign: Lifesign, table: Table) -> int:
    return await lifesign.node.db.read(lambda conn: conn.scalar(select(func.count()).select_from(table))) or 0


async def test_a_network_makes_so_many_projects_an_hour(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(mint_limit_per_hour=3) as lifesign,
        visitor(lifesign, "192.0.2.1") as someone,
        visitor(lifesign, "192.0.2.2") as other,
    ):
        await someone.sign_up()
        await lifesign.advance(600)
        await someone.provision("two")
        await someone.provision("three")

        refused = await someone.ask("POST", "/v1/signup")

        assert (refused.status_code, refused.json()["error"]) == (429, "mint_rate_limited")
        assert refused.headers["retry-after"] == "3000"
        assert await signs_up(other) == 201
        await lifesign.advance(2999)
        assert (await someone.ask("POST", "/v1/provision", {"project_name": "four"})).headers["retry-after"] == "1"
        await lifesign.advance(1)
        assert await signs_up(someone) == 201
        # The other two count for another ten minutes.
        assert (await someone.ask("POST", "/v1/signup")).headers["retry-after"] == "600"


async def test_a_project_that_is_found_again_counts_for_nothing(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(mint_limit_per_hour=1) as lifesign, visitor(lifesign) as someone:
        made = await someone.provision("shop")

        for _ in range(5):
            await someone.provision("shop", key=made["agent_key"], expect=200)
            await someone.told("POST", "/v1/provision", {"project_name": "shop"}, expect=401)
            await someone.told("POST", "/v1/provision", {"project_name": " "}, expect=400)


async def test_all_networks_together_make_so_many_projects_an_hour(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(mint_limit_total_per_hour=4) as lifesign:
        statuses = []
        for n in range(6):
            async with visitor(lifesign, f"192.0.2.{n}") as someone:
                statuses.append(await signs_up(someone))

    assert statuses == [201] * 4 + [429] * 2


async def test_zero_is_no_limit_and_counts_nothing(start_lifesign: MakeLifesign) -> None:
    unlimited: Json = {"mint_limit_per_hour": 0, "mint_limit_total_per_hour": 0, "recover_limit_per_hour": 0}
    async with start_lifesign(**unlimited) as lifesign, visitor(lifesign) as someone:
        body = {"project_id": "a", "recovery_code": "b"}
        assert [await signs_up(someone) for _ in range(125)] == [201] * 125
        assert {(await someone.refused("POST", "/v1/recover", body))[0] for _ in range(65)} == {403}
        assert await count_of(lifesign, limited_calls) == 0


async def test_a_refused_call_counts_for_nothing(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(mint_limit_per_hour=1) as lifesign, visitor(lifesign) as someone:
        assert await signs_up(someone) == 201
        for _ in range(3):
            await lifesign.advance(1000)
            assert await signs_up(someone) == 429

        await lifesign.advance(600)

        assert await signs_up(someone) == 201


async def test_limits_survive_a_restart(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(mint_limit_per_hour=1) as lifesign, visitor(lifesign, "192.0.2.1") as someone:
        assert await signs_up(someone) == 201
    async with start_lifesign(mint_limit_per_hour=1) as lifesign, visitor(lifesign, "192.0.2.1") as someone:
        assert await signs_up(someone) == 429


async def test_as_many_at_once_as_there_is_room_for_get_in(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(mint_limit_per_hour=7) as lifesign, visitor(lifesign) as someone:
        statuses = await asyncio.gather(*(signs_up(someone) for _ in range(20)))

    assert sorted(statuses) == [201] * 7 + [429] * 13


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_nodes_share_their_limits(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(mint_limit_per_hour=7) as first,
        start_lifesign(mint_limit_per_hour=7) as second,
        visitor(first, "192.0.2.1") as here,
        visitor(second, "192.0.2.1") as there,
    ):
        statuses = await asyncio.gather(*(signs_up(each) for _ in range(10) for each in (here, there)))

    assert sorted(statuses) == [201] * 7 + [429] * 13


async def test_every_recovery_counts_but_those_without_their_fields(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(recover_limit_per_hour=3) as lifesign,
        visitor(lifesign, "192.0.2.1") as someone,
        visitor(lifesign, "192.0.2.2") as other,
    ):
        made = await someone.sign_up()
        right = {"project_id": made["project_id"], "recovery_code": made["recovery_code"]}
        wrong = right | {"recovery_code": "0" * 64}
        assert [(await someone.refused("POST", "/v1/recover", {}))[0] for _ in range(5)] == [400] * 5
        await someone.told("POST", "/v1/recover", right)
        assert [(await someone.refused("POST", "/v1/recover", wrong))[0] for _ in range(2)] == [403] * 2

        refused = await someone.ask("POST", "/v1/recover", right)

        assert (refused.status_code, refused.json()["error"]) == (429, "recover_rate_limited")
        assert refused.headers["retry-after"] == "3600"
        await other.told("POST", "/v1/recover", right)
        # Making projects is another matter.
        assert await signs_up(someone) == 201


async def test_what_counts_no_longer_is_forgotten(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        await someone.sign_up()
        await someone.refused("POST", "/v1/recover", {"project_id": "a", "recovery_code": "b"})
        await lifesign.advance(HOUR_S - 60)
        assert await count_of(lifesign, limited_calls) == 2

        await lifesign.advance(120)
        await lifesign.advance(60)

        assert await count_of(lifesign, limited_calls) == 0
        assert await count_of(lifesign, projects) == 2


# Networks -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
    ],
)
def test_a_network_is_an_address_or_a_site(address: str, network: str) -> None:
    assert network_name(ipaddress.ip_address(address)) == network


@pytest.mark.parametrize(
    ("peer", "forwarded", "same_as"),
    [
        # Nobody is believed who is no proxy of ours.
        ("192.0.2.1", "198.51.100.1", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        # Whatever the caller wrote stands further left than what our proxy did.
        ("10.0.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::5]:4711", "2001:db8::6"),
        ("10.0.0.1", "2001:db8::5", "2001:db8::6"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8:1::1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:1::1", "198.51.100.1", "2001:db8:1:1::2"),
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
    ],
)
async def test_a_caller_behind_a_proxy_is_counted_by_its_own_address(
    start_lifesign: MakeLifesign, peer: str, forwarded: str, same_as: str
) -> None:
    trusted = "10.0.0.0/8, 2001:db8:1::/64"
    async with (
        start_lifesign(mint_limit_per_hour=1, trusted_proxies=trusted) as lifesign,
        visitor(lifesign, peer) as behind,
        visitor(lifesign, same_as) as direct,
    ):
        assert await signs_up(behind, X_Forwarded_For=forwarded) == 201

        assert await signs_up(direct) == 429


async def test_two_callers_behind_one_proxy_are_two(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(mint_limit_per_hour=1, trusted_proxies="10.0.0.1") as lifesign,
        visitor(lifesign, "10.0.0.1") as proxy,
    ):
        statuses = [await signs_up(proxy, X_Forwarded_For=each) for each in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]

    assert statuses == [201, 201, 429]


@pytest.mark.parametrize("value", ["10.0.0.0/33", "proxy.example.org", "10.0.0.1/8", "::1, nonsense"])
def test_a_proxy_that_is_no_network_keeps_the_server_from_starting(value: str) -> None:
    with pytest.raises(ValidationError, match="is not a CIDR"):
        Settings(trusted_proxies=value)


def test_a_clock_that_was_set_back_shuts_nobody_out_for_longer_than_an_hour() -> None:
    now = EpochMs(1_767_614_400_000)

    assert rules.wait_ms(EpochMs(now + 50_000_000), now) == HOUR_S * 1000
    assert rules.wait_ms(EpochMs(now - HOUR_S * 1000), now) == 0
    assert rules.wait_ms(None, now) == 0
    assert [rules.retry_after_s(wait) for wait in (1, 1000, 1001)] == [1, 1, 2]
