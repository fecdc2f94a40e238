"""Equal operations, arguments and results have equal numbers, and different ones different numbers."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.telemetry.hashes import canonical, hashed, operation_hash

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def test_a_number_is_the_first_eight_bytes_of_sha256_with_a_sign() -> None:
    # `printf abc | sha256sum` begins with ba7816bf8f01cfea.
    assert hashed("abc") == 0xBA7816BF8F01CFEA - 2**64


def test_the_number_of_an_operation_leaves_out_what_is_particular_to_a_call() -> None:
    one = operation_hash("http", "/users/17")

    assert operation_hash("http", "/users/18") == one
    assert operation_hash("tool", "/users/17") != one
    assert operation_hash("http", "/orders/17") != one
    told = hashlib.sha256(b"http\x1f/users/<n>").digest()[:8]
    assert one == int.from_bytes(told, "big", signed=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (' {"b": 1, "a": [1.0, 2.50, 1e3, -0.0, true, null]} ', '{"a":[1,2.5,1000,0,true,null],"b":1}'),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('"größe"', '"größe"'),
        ("[1E2]", "[100]"),
        ("[1e999]", '["1e999"]'),
        ("[12345678901234567890123, 12345678901234567890124]", "[12345678901234567890123,12345678901234567890124]"),
        # What is no JSON is its own text.
        ("  ls -la ", "ls -la"),
        ("{broken", "{broken"),
        ("[NaN, 1.0]", "[NaN, 1.0]"),
        ("[" * 30_000, "[" * 30_000),
        ("[" * 500 + "]" * 500, "[" * 500 + "]" * 500),
        ("1" * 5000, "1" * 5000),
        ("", ""),
    ],
    ids=lambda text: str(text)[:20],
)
def test_canonical_texts(text: str, expected: str) -> None:
    assert canonical(text) == expected


def test_halves_of_surrogate_pairs_in_an_escape_have_a_number_too() -> None:
    assert hashed(canonical('{"a": "\\ud800", "b": 1.0}')) != hashed(canonical('{"a": "\\ud801", "b": 1.0}'))


@given(JSON)
def test_values_and_their_texts_have_one_canonical_form(value: Any) -> None:
    pretty = json.dumps(value, indent=2, ensure_ascii=False)
    escaped = json.dumps(value, sort_keys=True)

    assert canonical(pretty) == canonical(escaped)
    assert json.loads(canonical(pretty)) == value


@given(JSON)
def test_the_quick_way_gives_what_the_careful_one_gives(value: Any) -> None:
    # A float beside it makes the whole text take the careful way.
    quick = canonical(json.dumps(value))
    careful = canonical(json.dumps([value, 1.5]))

    assert careful == f"[{quick},1.5]"
