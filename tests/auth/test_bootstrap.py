"""The admin key of the first start, and the one an operator chooses. Spec "Heartbeats", section 2."""

import re

import pytest
from pydantic import SecretStr, ValidationError

from lifesign.settings import Settings
from tests.harness import ADMIN_KEY, Lifesign, MakeLifesign

OTHER_KEY = "another-admin-key-9876543210"


async def opens(lifesign: Lifesign, key: str) -> bool:
    async with lifesign.client(key) as client:
        status = (await client.get("/v1/keys")).status_code
    assert status in {200, 401}
    return status == 200


async def test_the_first_start_makes_a_key_and_later_ones_do_not(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(admin_key=None) as first:
        made = first.node.new_admin_key
        assert made is not None
        assert re.fullmatch(r"lsk_[a-z2-7]{52}", made)
        assert await opens(first, made)
        async with first.client(made) as client:
            (key,) = (await client.get("/v1/keys")).json()["keys"]
        assert (key["name"], key["scopes"], key["prefix"]) == ("admin", ["*"], made[:12])

    async with start_lifesign(admin_key=None) as second:
        assert second.node.new_admin_key is None
        assert await opens(second, made)


async def test_a_revoked_first_key_does_not_come_back(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(admin_key=None) as first:
        made = first.node.new_admin_key
        assert made is not None
        async with first.client(made) as client:
            (key,) = (await client.get("/v1/keys")).json()["keys"]
            assert (await client.delete(f"/v1/keys/{key['id']}")).status_code == 204

    async with start_lifesign(admin_key=None) as second:
        assert second.node.new_admin_key is None
        assert not await opens(second, made)


async def test_a_chosen_key_is_the_admin_key_and_nothing_is_printed(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        assert lifesign.node.new_admin_key is None
        (key,) = (await lifesign.ask("GET", "/v1/keys"))["keys"]

    assert (key["name"], key["scopes"], key["prefix"]) == ("admin", ["*"], "test")


async def test_the_same_chosen_key_stays_one_key(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as first:
        before = await first.ask("GET", "/v1/keys")
    async with start_lifesign() as second:
        afterwards = await second.ask("GET", "/v1/keys")

    assert [each["id"] for each in afterwards["keys"]] == [each["id"] for each in before["keys"]]


async def test_a_changed_chosen_key_revokes_the_old_one_and_no_other(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as first:
        minted = await first.ask("POST", "/v1/keys", {"name": "mine"}, expect=201)

    async with start_lifesign(admin_key=SecretStr(OTHER_KEY)) as second:
        assert not await opens(second, ADMIN_KEY)
        assert await opens(second, OTHER_KEY)
        assert await opens(second, minted["token"])


async def test_a_key_chosen_later_replaces_the_printed_one(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(admin_key=None) as first:
        made = first.node.new_admin_key
        assert made is not None

    async with start_lifesign() as second:
        assert await opens(second, ADMIN_KEY)
        assert not await opens(second, made)


async def test_a_chosen_key_that_is_no_longer_set_stays_good(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign():
        pass

    async with start_lifesign(admin_key=None) as second:
        assert second.node.new_admin_key is None
        assert await opens(second, ADMIN_KEY)


@pytest.mark.parametrize("key", ["x" * 16, "x" * 128, "!~" * 8])
def test_a_chosen_key_has_sixteen_to_128_printable_characters(key: str) -> None:
    chosen = Settings(admin_key=SecretStr(key)).admin_key

    assert chosen is not None
    assert chosen.get_secret_value() == key


@pytest.mark.parametrize("key", ["x" * 15, "x" * 129, "with blank " * 2, "ü" * 20, "tab\t" * 5, "line\n" * 5])
def test_any_other_chosen_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Settings(admin_key=SecretStr(key))

    assert "must be 16 to 128 printable ASCII characters without spaces" in str(refusal.value)
    assert key not in str(refusal.value)


@pytest.mark.parametrize("address", ["lifesign.example.org", "ftp://x", "https://", "https://a b", "https://x/?y"])
def test_a_public_address_is_one_that_links_can_begin_with(address: str) -> None:
    with pytest.raises(ValidationError, match=r"must be an address with http:// or https://"):
        Settings(public_url=address)


@pytest.mark.parametrize(
    "address", ["https://lifesign.example.org", "http://[::1]:8080", "https://example.org/lifesign"]
)
def test_a_public_address_loses_its_last_slash(address: str) -> None:
    assert Settings(public_url=f"{address}/").public_url == Settings(public_url=address).public_url == address
