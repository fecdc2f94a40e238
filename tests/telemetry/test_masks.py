"""What differs from one occurrence to the next is masked, and nothing else."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lifesign.telemetry.masks import masked, masked_operation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no such user ann.b@example.org here", "no such user <email> here"),
        ("GET https://api.example.org/v1/x?y=1 failed", "GET <url> failed"),
        ("connect to 10.0.0.17:8080 refused", "connect to <ip>:<n> refused"),
        ("connect to fe80::1 refused", "connect to <ip> refused"),
        ("from 2001:db8:0:0:0:ff00:42:8329.", "from <ip>."),
        ("in 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "in <trace>"),
        ("order 7c9e6679-7425-40de-944b-e07fc1f90ae7 lost", "order <uuid> lost"),
        ("call toolu_01a2b3c4d5e6f7a8b9 failed", "call toolu_<hex> failed"),
        ("at 2026-01-05T12:00:00.123Z", "at <date>"),
        ("at 2026-01-05 12:00 and 2026-01-06", "at <date> and <date>"),
        ("took 12ms, then 3.5 s, then 2 minutes", "took <dur>, then <dur>, then <dur>"),
        ("unknown key 'a rather long text in quotes'", "unknown key <str>"),
        ("unknown key 'short'", "unknown key 'short'"),
        ("at 0x7ffd1234", "at <hex>"),
        ("line 12, -4 of 1.5e-3", "line <n>, <n> of <n>"),
        ("model gpt-5 on s3 with utf8 and v1.2", "model gpt-5 on s3 with utf8 and v1.2"),
        ("10-20 items", "<n><n> items"),
        ("  two \n\n lines\tand   blanks ", "two lines and blanks"),
        ("\uff26\uff35\uff2c\uff2c width \uff15", "FULL width <n>"),
        ("12:30:45 is a time, no address", "<n>:<n>:<n> is a time, no address"),
        ("std::string", "std::string"),
        ("deadbeefdeadbeefdead is hex without a digit", "deadbeefdeadbeefdead is hex without a digit"),
        ("", ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_messages(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://api.example.org/v1/users/17?x=1", "GET https://api.example.org/<url>"),
        ("GET https://api.example.org", "GET https://api.example.org"),
        ("GET http://10.0.0.17:8080/x", "GET http://<ip>:<n>/<url>"),
        ("/users/123/orders/7c9e6679-7425-40de-944b-e07fc1f90ae7", "/users/<n>/orders/<uuid>"),
        ("/v1/chat", "/v1/chat"),
        ("POST /v2/s3/{bucket}", "POST /v2/s3/{bucket}"),
        ("chat gpt-5", "chat gpt-5"),
    ],
)
def test_operations_keep_scheme_and_host(text: str, expected: str) -> None:
    assert masked_operation(text) == expected


PIECES = st.sampled_from(
    [
        *("a@b.c", "http://h/p", "https://h", "1.2.3.4", "::1", "12ms", "3.5", "-7", "0x1f", "gpt-5", "'", '"', "<n>"),
        *(
            "/",
            ".",
            ":",
            "-",
            "@",
            " ",
            "x",
            "1",
            "e",
            "2026-01-05",
            "12:00",
            "<url>",
            "deadbeef00000000",
            "\n",
            "\uff41",
        ),
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=60))
@example("::12::1a")
@example("a" * 199 + " 1x")
@example("x" * 195 + " 12.5.x")
def test_to_mask_twice_changes_nothing(text: str) -> None:
    for mask in (masked, masked_operation):
        once = mask(text)
        assert mask(once) == once
        assert len(once) <= 200


@pytest.mark.parametrize(
    "text",
    [
        *("a0" * 2048, "1." * 2048, "a@" * 2048, "a@b." * 1024, "http://" * 600, "'" * 4096, "x-" * 2048, "1:" * 2048),
        *("1-1" * 1400, "0x" * 2048, "::" * 2048, "\"'`" * 1400, "1e" * 2048, "<" * 4096, "abcdef" * 700, "9" * 4096),
        "2026-01-05T" * 400,
    ],
    ids=lambda text: str(text)[:11],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    for _ in range(10):
        masked(text)
        masked_operation(text)

    # 5 ms each is what diagnosis can bear.
    assert (time.process_time() - began) / 20 < 0.005
