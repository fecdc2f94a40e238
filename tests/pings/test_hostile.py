"""Whatever is sent to the surface of pings, it is answered, and never with a fault of the server."""

import json
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifesign.heartbeats.slugs import is_valid_slug
from lifesign.pings.mail import mail_of, recipient_of
from lifesign.pings.rules import remote_address, slug_of_name, target_of
from tests.harness import Lifesign
from tests.pings.pinging import api, check, ping_key, send

_MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_WORDS = st.sampled_from(
    ["start", "fail", "log", "0", "7", "255", "256", "-1", "%00", "..", "", "a" * 101, "{key}", "{uuid}", "backup"]
)
_PARTS = st.lists(_WORDS | st.text(max_size=12).map(lambda text: quote(text, safe="")), min_size=1, max_size=4)
_QUERY = st.dictionaries(
    st.sampled_from(["rid", "create", "period", "grace", "schedule", "tz", "tags", "x"]),
    st.sampled_from(
        ["1", "x", "", "\x00", "0 2 * * *", "1d", "99999999999d", "Europe/Berlin", "\ud83d\ude00"[:1]]
    ).filter(lambda text: text.isprintable() or text == "\x00")
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    max_size=4,
)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = [
    "name", "slug", "tags", "desc", "timeout", "grace", "schedule", "tz", "manual_resume", "methods", "subject",
    "subject_fail", "start_kw", "success_kw", "failure_kw", "filter_subject", "filter_body", "filter_http_body",
    "filter_default_fail", "unique", "channels", "policy", "api_key", "other",
]  # fmt: skip


async def test_no_ping_url_is_a_fault_of_the_server(lifesign: Lifesign) -> None:
    made = await check(lifesign)
    names = {"key": await ping_key(lifesign), "uuid": made["uuid"]}

    @_MANY
    @given(parts=_PARTS, query=_QUERY, method=st.sampled_from(["GET", "POST", "HEAD"]), body=st.binary(max_size=50))
    async def try_it(parts: list[str], query: dict[str, str], method: str, body: bytes) -> None:
        path = "/".join(part.replace("{key}", names["key"]).replace("{uuid}", names["uuid"]) for part in parts)
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        content = body if method == "POST" else None

        answer = await send(lifesign, f"{path}?{asked}", method, content=content)

        # 303, 405: `..` leaves the pings for the pages, which send on to where people sign in and take no such verb.
        assert answer.status_code in {200, 201, 303, 400, 404, 405}, f"{path}?{asked}"

    await _run(try_it)


async def test_no_body_is_a_fault_of_the_server(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    @_MANY
    @given(
        body=st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4) | _JSON,
        path=st.sampled_from(["checks/", f"checks/{made['uuid']}"]),
        version=st.sampled_from([1, 2, 3]),
    )
    async def try_it(body: Any, path: str, version: int) -> None:  # Any: JSON
        answer = await api(lifesign, "POST", path, body, version=version)

        assert answer.status_code in {200, 201, 400, 401, 403}, json.dumps(body)

    await _run(try_it)


async def _run(test: Any) -> None:  # Any: a function that the library has wrapped
    """The examples of an asynchronous test, one after another, in the loop that runs already."""
    examples: list[dict[str, Any]] = []
    inner = test.hypothesis.inner_test

    def collect(**example: Any) -> None:
        examples.append(example)

    test.hypothesis.inner_test = collect
    test()
    assert len(examples) > 50
    for example in examples:
        await inner(**example)


@_MANY
@given(st.binary(max_size=300))
def test_any_mail_can_be_looked_at(raw: bytes) -> None:
    assert isinstance(mail_of(raw).text, str)


@_MANY
@given(
    st.lists(
        st.sampled_from([
            b"Subject: ", b"Content-Type: ", b"text/html", b"; charset=", b"utf-8", b"multipart/mixed; boundary=x",
            b"--x", b"\r\n", b"\r\n\r\n", b"Content-Transfer-Encoding: base64", b"quoted-printable", b"=?", b"?=",
            b"=?utf-8?q?=ff?=", b"\xff", b"<b>", b"&#x;", b"<![", b"message/rfc822", b"\x00",
        ]),
        max_size=14,
    ).map(b"".join)
)  # fmt: skip
def test_mails_that_are_nearly_right_can_be_looked_at(raw: bytes) -> None:
    assert isinstance(mail_of(raw).subject, str)


@_MANY
@given(st.text(max_size=300), st.text(max_size=60))
def test_any_address_and_any_path_is_judged(address: str, path: str) -> None:
    recipient_of(address.encode("utf-8", "replace").decode())
    target_of(path)

    assert remote_address(address, "127.0.0.1")


@_MANY
@given(st.text(max_size=120) | st.sampled_from(["hb_x", "HB__", "__x__", "a" * 200, "é-ü", "\u0661"]))
def test_the_slug_of_any_name_is_one_or_none(name: str) -> None:
    slug = slug_of_name(name)

    assert slug is None or (is_valid_slug(slug) and len(slug) <= 90)
