"""Who may have a key, and what it looks like. Spec "Usage", sections 1 and 2."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifesign.auth.vitals import rules
from lifesign.auth.vitals.rules import ApiKeyInvalid, ApiKeyMissing, Wish, WishRefused

GOOD = {"name": "Jane", "email": "jane@x.io"}
KEY = "beam_a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4"


def refusal(**changes: object) -> str:
    """Why a wish with these changes is refused."""
    with pytest.raises(WishRefused) as refused:
        rules.wish_in(GOOD | changes)
    return str(refused.value)


def test_a_key_is_beam_and_32_lower_case_hexadecimal_characters() -> None:
    made = {rules.new_key() for _ in range(100)}

    assert len(made) == 100
    assert all(rules.key_in(each.encode()) == each.encode() for each in made)
    assert rules.shown_prefix(KEY) == "beam_a1b2"


def test_what_is_stored_of_a_key_is_its_sha256() -> None:
    assert rules.key_hash(KEY) == rules.key_hash(KEY.encode())
    assert rules.key_hash("beam_") == "646ad1a0999cc680f5430c24fdb26e8a4638197a1a4b73e38f6233b492a2b1e3"


@pytest.mark.parametrize("header", [KEY, f"  {KEY}", f"{KEY}\t "])
def test_blanks_around_a_key_do_not_matter(header: str) -> None:
    assert rules.key_in(header.encode()) == KEY.encode()


@pytest.mark.parametrize("header", [None, b"", b"  ", b"\t"])
def test_nothing_is_a_missing_key(header: bytes | None) -> None:
    with pytest.raises(ApiKeyMissing, match=r"^API key is required$"):
        rules.key_in(header)


@pytest.mark.parametrize(
    "header",
    [
        KEY[:-1],
        KEY + "0",
        KEY.upper(),
        KEY.replace("a", "A"),
        KEY[:-1] + "g",
        "Bearer " + KEY,
        "beam_",
        "ü",
        KEY + "\n",
    ],
)
def test_anything_else_is_an_invalid_key(header: str) -> None:
    with pytest.raises(ApiKeyInvalid, match=r"^Invalid API key$"):
        rules.key_in(header.encode())


def test_what_was_not_said_is_null() -> None:
    assert rules.wish_in(GOOD) == Wish("Jane", "jane@x.io", None, None)
    assert rules.wish_in(GOOD | {"company": None, "use_case": None, "colour": 1}) == Wish(
        "Jane", "jane@x.io", None, None
    )


def test_texts_are_trimmed_and_a_blank_company_is_none() -> None:
    told = {"name": "  Jane Smith\n", "email": " Jane@X.io ", "company": " ", "use_case": "wellness"}

    assert rules.wish_in(told) == Wish("Jane Smith", "Jane@X.io", None, "wellness")


@pytest.mark.parametrize("name", [None, "", "  ", 5, [], True])
def test_a_name_is_required(name: object) -> None:
    assert refusal(name=name) == "Name is required"


@pytest.mark.parametrize("name", ["x" * 201, "a\nb", "a\x00b", "a\x7fb", "\x00"])
def test_a_name_is_short_and_without_control_characters(name: str) -> None:
    assert refusal(name=name) == "Name must be at most 200 characters"


def test_two_hundred_characters_are_counted_as_people_count_them() -> None:
    assert rules.wish_in(GOOD | {"name": " " + "ü" * 200}).name == "ü" * 200
    assert rules.wish_in(GOOD | {"company": "🫀" * 200 + " "}).company == "🫀" * 200


@pytest.mark.parametrize("company", [5, [], {}, True, "x" * 201, "a\x00b"])
def test_a_company_is_a_short_text(company: object) -> None:
    assert refusal(company=company) == "Company must be a string of at most 200 characters"


@pytest.mark.parametrize("use_case", ["gaming", "Telehealth", "", " other", 1, [], {}])
def test_a_use_case_is_one_of_five(use_case: object) -> None:
    told = "Invalid use_case. Must be one of: telehealth, wellness, fitness, research, other"

    assert refusal(use_case=use_case) == told


def test_the_first_field_that_is_wrong_is_told() -> None:
    assert refusal(name="", email="", company=1, use_case="") == "Name is required"
    assert refusal(email="", company=1, use_case="") == "Valid email is required"
    assert refusal(company=1, use_case="").startswith("Company")


@pytest.mark.parametrize(
    "email",
    [
        "a@b.c",
        "jane.smith+tag@health-app.io",
        "a@x.co1",
        "a@1.x",
        "ü@bücher.example",
        "o'neil!#$%&*/=?^_`{|}~-@x.io",
        "x" * 64 + "@x.io",
        f"a@{'b' * 63}.io",
        f"a@{'b.' * 125}io",
    ],
)
def test_these_are_addresses(email: str) -> None:
    assert rules.checked_email(f" {email} ") == email


@pytest.mark.parametrize(
    "email",
    [
        None,
        5,
        "",
        "x",
        "a@",
        "@x.io",
        "a b@c.d",
        "a@b@c.io",
        "a@io",
        "a@x..io",
        "a@.io",
        "a@x.io.",
        ".a@x.io",
        "a.@x.io",
        "a..b@x.io",
        "a@-x.io",
        "a@x-.io",
        "a@x_y.io",
        "a@x.123",
        "a@[127.0.0.1]",
        "a@x.io\x00",
        "a\u00a0b@x.io",
        "a\u200bb c@x.io",
        "x" * 65 + "@x.io",
        f"a@{'b' * 64}.io",
        f"a@{'b.' * 126}io",
    ],
)
def test_these_are_none(email: object) -> None:
    assert refusal(email=email) == "Valid email is required"


def test_an_address_is_the_same_in_any_case_and_otherwise_to_the_letter() -> None:
    assert rules.email_identity(" Jane@X.io ") == "jane@x.io"
    assert rules.email_identity("a+1@x.io") != rules.email_identity("a@x.io")
    assert rules.email_identity("a.b@x.io") != rules.email_identity("ab@x.io")


def test_places_that_are_taken_are_not_free() -> None:
    assert rules.free_slots([], 3) == [1, 2, 3]
    assert rules.free_slots([1, 3], 4) == [2, 4]
    assert rules.free_slots([1, 2, 3], 3) == []
    assert rules.free_slots([1, 2, 3], 0) == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "email", "company", "use_case"), _JSON)))
def test_whatever_is_said_is_refused_in_words_or_fits_the_table(body: dict[str, object]) -> None:
    with suppress(WishRefused):
        wish = rules.wish_in(body)
        assert 1 <= len(wish.name) <= 200
        assert "\x00" not in wish.name + wish.email + (wish.company or "")


@given(
    st.text(st.characters(codec="utf-8"), max_size=200), st.from_regex(r"[A-Za-z0-9]{1,9}\.[a-z]{2,5}", fullmatch=True)
)
def test_addresses_that_are_taken_can_be_taken_apart_again(local: str, domain: str) -> None:
    with suppress(WishRefused):
        email = rules.checked_email(f"{local}@{domain}")
        assert email.count("@") == 1
        assert email == email.strip()
        assert 1 <= len(email.partition("@")[0]) <= 64
