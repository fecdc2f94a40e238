"""Compressed bodies. Spec "Telemetry", section 3, rows 6 and 7."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.telemetry.inflate import MOST_MEMBERS, Encoding, inflate, inflated_size
from lifesign.telemetry.rules import InflatesTooFar, InvalidEncoding

MIB = 1024 * 1024
BODIES = st.binary(max_size=200) | st.builds(
    lambda part, times: part * times, st.binary(max_size=9), st.integers(0, 90_000)
)


def raw_deflate(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(body) + deflater.flush()


def compressed(body: bytes) -> list[tuple[bytes, Encoding]]:
    """A body in every form that is read."""
    return [
        (body, "identity"),
        (gzip.compress(body, 1), "gzip"),
        (zlib.compress(body), "deflate"),
        (raw_deflate(body), "deflate"),
    ]


@given(BODIES)
def test_every_form_inflates_to_what_was_compressed(body: bytes) -> None:
    for told, encoding in compressed(body):
        assert inflate(told, encoding, len(body)) == body
        assert inflated_size(told, encoding, len(body)) == len(body)


@given(BODIES, st.binary(min_size=1, max_size=70_000))
def test_members_of_gzip_follow_one_another(first: bytes, second: bytes) -> None:
    assert inflate(gzip.compress(first) + gzip.compress(second), "gzip", 10**7) == first + second


@given(st.binary(max_size=300), st.data())
def test_a_part_of_a_compressed_body_is_refused(body: bytes, data: st.DataObject) -> None:
    for told, encoding in compressed(body)[1:]:
        part = told[: data.draw(st.integers(0, len(told) - 1))]
        with pytest.raises(InvalidEncoding):
            inflate(part, encoding, len(body))


@pytest.mark.parametrize("more", [b"x", b"\x00", b"\x1f\x8b", gzip.compress(b"second", mtime=0)[:-1]])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_what_follows_a_compressed_body_is_refused(index: int, more: bytes) -> None:
    told, encoding = compressed(b"first")[index]

    with pytest.raises(InvalidEncoding):
        inflate(told + more, encoding, MIB)


@pytest.mark.parametrize("index", [1, 2])
def test_a_changed_byte_is_found_by_the_checksum(index: int) -> None:
    told, encoding = compressed(b"first" * 100)[index]
    broken = bytes([*told[:-6], told[-6] ^ 1, *told[-5:]])

    with pytest.raises(InvalidEncoding):
        inflate(broken, encoding, MIB)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_inflate_or_are_refused(told: bytes, encoding: Encoding) -> None:
    try:
        inflate(told, encoding, MIB)
    except (InvalidEncoding, InflatesTooFar) as refused:
        assert not isinstance(refused, InvalidEncoding) or str(refused)  # noqa: PT017 - a broken body says how


def test_a_body_may_inflate_to_the_limit_and_no_further() -> None:
    body = b"x" * MIB
    for told, encoding in compressed(body)[1:]:
        assert inflate(told, encoding, MIB) == body
        with pytest.raises(InflatesTooFar):
            inflate(told, encoding, MIB - 1)


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """20 GB of zeros in 20 MB of gzip."""
    deflater = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    zeros = bytes(10 * MIB)
    # Zeros compress to a pattern that repeats, so that it need not be made 2,000 times.
    first, second, third = (deflater.compress(zeros) for _ in range(3))
    return first + second + third * 2000


def test_twenty_gigabytes_of_zeros_take_no_more_than_the_limit(bomb: bytes) -> None:
    assert len(bomb) > 19_000_000
    tracemalloc.start()
    try:
        for act in (inflated_size, inflate):
            with pytest.raises(InflatesTooFar):
                act(bomb, "gzip", 20 * MIB)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert most < 22 * MIB


def test_more_members_than_anybody_sends_are_refused() -> None:
    empty = gzip.compress(b"")

    assert inflate(empty * MOST_MEMBERS, "gzip", 0) == b""
    with pytest.raises(InvalidEncoding):
        inflate(empty * (MOST_MEMBERS + 1), "gzip", 0)
