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
        ("x" * 199 + " y", "x" * 199),
        ("a%b@c.org ann+x@c.org a-b@c.org ann@my-shop.example.org", "<email> <email> <email> <email>"),
        ("root@localhost", "root@localhost"),
        ("see <https://h.org/c>, not 1http://h.org/c", "see <<url>>, not 1http://h.org/c"),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01f", "<n>-<hex>-<hex>-01f"),
        ("lost postgresql+asyncpg://db-1.x:5432/shop?ssl=1", "lost <url>"),
        ("https://h.org?x=1 https://h.org#top", "<url> <url>"),
        ("'https://h.org/a' \"https://h.org/b\" https://h.org/a?b<br>", "'<url>' \"<url>\" <url><br>"),
        ("https://h.org'x https://h.org\"x https://h.org<x https://h.org>x", "<url>'x <url>\"x <url><x <url>>x"),
        ("1.2.3.4.5 and 1.2.3.4567 and 1234.1.1.1", "<n> and <n> and <n>"),
        ("v1.2.3.4 and x.1.2.3.4 and 1.2.3.4x and 1.2.3.4.x", "v1.2.3.4 and x.1.2.3.4 and 1.2.3.4x and <ip>.x"),
        ("1:2:3:4:5:6:7:8 and 1:2:3:4:5:6:7:8:9", "<ip> and <n>:<n>:<n>:<n>:<n>:<n>:<n>:<n>:<n>"),
        ("1:2:3:4:5:6:7:8x", "<n>:<n>:<n>:<n>:<n>:<n>:<n>:8x"),
        ("1:2:3:4:5:6:7:12345", "<n>:<n>:<n>:<n>:<n>:<n>:<n>:<n>"),
        ("::1 and fe80:1:: and 2001:db8::8a2e:370:7334", "<ip> and <ip> and <ip>"),
        ("dead::beef and 1::2:3x and ::1: and x.1::2", "dead::beef and <n>::<n>:3x and ::<n>: and x.1::<n>"),
        ("7c9e6679-7425-40de-944b-e07fc1f90ae7f", "7c9e6679-7425-40de-944b-e07fc1f90ae7f"),
        ("f7c9e6679-7425-40de-944b-e07fc1f90ae7", "f7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("0123456789abcde 0123456789abcdef 0123456789abcdefg", "0123456789abcde <hex> 0123456789abcdefg"),
        ("2026-01-05t12:00:00,5z 2026-01-05T12:00:00", "<date> <date>"),
        ("2026-01-05T12:00:00+0100 2026-01-05T12:00:00-01:00", "<date> <date>"),
        ("x2026-01-05 and 2026-01-05T12:00x", "x2026-01-05 and <n><n>-05T12:00x"),
        ("1.2.3s and x12ms and 5sx and 5 meters", "1.2.3s and x12ms and 5sx and <n> meters"),
        ('"all of it has twenty" "all of it, has twenty"', '"all of it has twenty" <str>'),
        ("'all of it has twenty' 'all of it, has twenty'", "'all of it has twenty' <str>"),
        ("`all of it has twenty` `all of it, has twenty`", "`all of it has twenty` <str>"),
        ("0X1F and 0x1fg and x0x1f", "<hex> and 0x1fg and x0x1f"),
        ("+5 and 1.2.3 and 1E5 and 1e+5", "<n> and <n> and <n> and <n>"),
        ("3s1 and 7f3a and \u00e95 and a-1.b-2", "3s1 and 7f3a and \u00e95 and a-1.b-2"),
    ],
)
def test_messages(text: str, expected: str) -> None:
    assert masked(text) == expected


UNITS = "ns us \u03bcs \u00b5s ms s sec secs second seconds min mins minute minutes h hour hours day days millisecond"


@pytest.mark.parametrize("unit", [*UNITS.split(), "milliseconds"])
def test_how_long_it_took_is_masked_in_every_unit(unit: str) -> None:
    assert masked(f"after 5{unit}, 5 {unit} and 2.5 {unit}") == "after <dur>, <dur> and <dur>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://h.org/", "GET https://h.org/"),
        ("GET https://h.org?x=1", "GET https://h.org/<url>"),
        ("GET https://h.org#top", "GET https://h.org/<url>"),
        ("GET https://h.org<url><url>", "GET https://h.org/<url>"),
        ("git+ssh://h.org/x", "git+ssh://h.org/<url>"),
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
