import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.auth.rules import KNOWN_SCOPES
from lifesign.clock import EpochMs
from lifesign.web import rules
from tests.web.conftest import PRODUCTION_HASHER

NOW = EpochMs(1_767_614_400_000)


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(0, 0), (4, 0), (5, 30), (6, 60), (7, 120), (9, 480), (10, 900), (5000, 900)]
)
def test_five_wrong_passwords_are_free_and_then_the_wait_doubles_up_to_a_quarter_of_an_hour(
    failures: int, wait_s: int
) -> None:
    assert rules.wait_ms(failures, NOW, NOW) == wait_s * 1000


@given(st.integers(0, 10**6), st.integers(0, 10**9))
def test_nobody_waits_longer_than_a_quarter_of_an_hour_after_the_last_try(failures: int, later: int) -> None:
    wait = rules.wait_ms(failures, NOW, EpochMs(NOW + later))

    assert 0 <= wait <= max(0, 900_000 - later)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (" Ada@Example.ORG ", "ada@example.org"),
        ("ada", None),
        ("@example.org", None),
        ("a@b@c", None),
        ("a b@example.org", None),
        ("a@" + "b" * 253, None),
        ("a\x00@example.org", None),
    ],
)
def test_an_address_is_kept_case_folded_or_refused(text: str, kept: str | None) -> None:
    assert rules.checked_email(text) == kept


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("/incidents?x=1", "/incidents?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/a\nb", "/"),
        ("", "/"),
    ],
)
def test_after_signing_in_one_goes_on_at_this_server_only(wanted: str, place: str) -> None:
    assert rules.safe_place(wanted) == place


def test_a_viewer_may_read_everything_and_write_nothing() -> None:
    assert rules.SCOPES["viewer"] == {each for each in KNOWN_SCOPES if each.endswith(":read")}
    assert "keys:write" not in rules.SCOPES["editor"]
    assert "heartbeats:write" in rules.SCOPES["editor"]
    assert "*" not in rules.SCOPES["editor"]


def test_passwords_have_12_to_256_characters_and_are_hard_to_guess() -> None:
    assert rules.length_fault("x" * 11) == "must have at least 12 characters"
    assert rules.length_fault("x" * 257) == "must have at most 256 characters"
    assert rules.length_fault("x" * 12) is None
    assert rules.strength_fault(3, "") is None
    assert rules.strength_fault(2, "This is a common word.") == (
        "is too easy to guess. This is a common word. Four or more unrelated words are hard to guess"
    )


def test_what_is_kept_of_a_password_takes_64_mib_and_three_rounds_to_try() -> None:
    # Argon2id with what RFC 9106 recommends where memory is short.
    hasher = PRODUCTION_HASHER

    assert hasher.hash("a password").startswith("$argon2id$v=19$m=65536,t=3,p=4$")
