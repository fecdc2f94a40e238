"""Names and codes, without a server."""

import hashlib
import hmac
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.clock import EpochMs
from lifesign.projects import rules
from lifesign.projects.rules import Codes, NameInvalid

NAMES = st.text(min_size=1, max_size=100)


@pytest.mark.parametrize(
    ("name", "key", "slug"),
    [
        ("My App", "my-app", "my-app"),
        ("my-app", "my-app", "my-app"),
        (" MY  APP ", "my-app", "my-app"),
        ("__My.App!!", "my-app", "my-app"),
        ("\uff2dy\u3000App", "my-app", "my-app"),
        ("Ⅷ²", "viii2", "viii2"),
        ("Straße", "strasse", "strasse"),
        ("Café Nord", "café nord", "caf-nord"),
        ("Cafe\u0301  NORD", "café nord", "caf-nord"),
        ("проект", "проект", ""),
        ("Проект № 5!", "проект no 5!", "no-5"),
        ("", "", ""),
    ],
)
def test_a_name_has_a_key_and_a_slug(name: str, key: str, slug: str) -> None:
    assert (rules.name_key(name), rules.slug_of(name)) == (key, slug)


def test_ids_are_slug_and_chance() -> None:
    assert rules.project_id("My App", "0123abcd") == "my-app-0123abcd"
    assert rules.project_id("проект", "0123abcd") == "project-0123abcd"
    assert rules.project_id("x" * 60, "0123abcd") == "x" * 40 + "-0123abcd"


@given(NAMES)
def test_case_and_blanks_never_make_another_project(name: str) -> None:
    key = rules.name_key(name)

    assert rules.name_key(f"  {name}\n") == key
    assert rules.name_key(name.replace(" ", " \t ")) == key


@given(st.text(alphabet=string.ascii_letters + string.digits + " -_.", min_size=1, max_size=100))
def test_the_key_of_a_plain_name_is_its_slug(name: str) -> None:
    assert rules.name_key(name) == rules.slug_of(name) == rules.slug_of(name.upper())


@given(NAMES)
def test_every_name_has_an_id_that_fits_a_path(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9-]{1,40}-0123abcd", rules.project_id(name, "0123abcd"))


@given(NAMES)
def test_no_key_is_too_long_for_an_index(name: str) -> None:
    assert len(rules.name_key(name).encode()) <= 4 * 202


@given(NAMES)
def test_a_name_is_taken_or_refused_and_nothing_else(name: str) -> None:
    try:
        checked = rules.checked_name(name, "project_name")
    except NameInvalid:
        return
    assert checked == name.strip()
    assert rules.name_key(checked)


def test_long_keys_that_differ_only_at_their_end_are_told_apart() -> None:
    long = "\ufdfa" * 99

    assert rules.name_key(long + "\ufdfa") != rules.name_key(long + "\ufdfb")


@pytest.mark.parametrize(
    ("name", "is_fine"),
    [
        ("default", True),
        ("a.b_c-1", True),
        ("sandbox", False),
        ("", False),
        ("A", False),
        ("-a", False),
        ("a" * 65, False),
        ("a\n", False),
    ],
)
def test_tenants_are_short_and_plain(name: str, is_fine: bool) -> None:
    assert rules.is_tenant(name) is is_fine


def test_codes_are_what_hmac_says_by_hand() -> None:
    codes = Codes("the secret")

    assert codes.recovery("p-1") == hmac.digest(b"the secret", b"recover:p-1", hashlib.sha256).hex()
    assert codes.upgrade("p-1") == hmac.digest(b"the secret", b"signup-upgrade:sandbox:p-1", hashlib.sha256).hex()


@given(st.text())
def test_no_text_but_the_code_itself_is_the_code(text: str) -> None:
    expected = Codes("the secret").recovery("p-1")

    assert rules.is_same_code(text, expected) is (text.strip().lower() == expected)
    assert rules.is_same_code(f" {expected.upper()}\t", expected)


def test_an_extension_counts_from_the_end_or_from_now() -> None:
    day = 24 * 3600 * 1000

    assert rules.extended(EpochMs(10 * day), 2, EpochMs(5 * day)) == 12 * day
    assert rules.extended(EpochMs(10 * day), 2, EpochMs(15 * day)) == 17 * day
