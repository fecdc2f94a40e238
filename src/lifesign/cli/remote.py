"""HTTP to a server, on the standard library: one request per command, quick to import.

A client library would take longer to load than the whole check-in takes to travel.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode, urlsplit

from lifesign.cli.errors import CommandFailed, Refused, Unreachable, WrongUsage
from lifesign.cli.values import Json

if TYPE_CHECKING:
    # Loaded with the first call: `lifesign run` starts its command before it needs any of this.
    from email.message import Message

DEFAULT_URL = "http://127.0.0.1:8080"
# Longer than the 20 s that the test of a channel may take.
TIMEOUT_S = 30.0
MAX_PAGE = 1000
# A proxy or a wrong address may answer without end; no page of a thousand rows comes near this.
_MAX_ANSWER_BYTES = 64 * 2**20
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_NO_CONTENT = 204
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_MAX_SHOWN_VALUE = 200

GET_A_KEY = (
    "the server prints one at its first start ('admin key: ...'), and on the server's machine "
    "'lifesign keys create --name NAME' makes one"
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request. path: with its query, percent-encoded."""

    method: str
    path: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class _Body(Protocol):
    """What a response can be read from."""

    def read(self, amount: int, /) -> bytes: ...


Send = Callable[[Call], Answer]
"""Carries a call to a server, whatever status it answers with. Raises Unreachable."""


def over_network(url: str, key: str | None, *, timeout_s: float = TIMEOUT_S) -> Send:
    """Calls to the server at `url`. timeout_s: of each connect, write and read. Raises WrongUsage for a bad address."""
    import http.client
    import urllib.error
    import urllib.request

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        """The server never redirects; whoever does must not be handed the key."""

        def redirect_request(self, *_: object) -> None:
            return None

    base, host = _address(url)
    # A proxy could not reach a server of this machine, and should not see the key.
    proxies = urllib.request.ProxyHandler({} if host in _LOOPBACK else None)
    opener = urllib.request.build_opener(NoRedirects, proxies)
    authorization = _authorization(key)

    def send(call: Call) -> Answer:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked above
            base + call.path, call.content, headers_of(call) | authorization, method=call.method
        )
        try:
            with opener.open(request, timeout=timeout_s) as response:
                return answer_of(response.status, response.headers, response)
        except urllib.error.HTTPError as error:
            with error:
                return answer_of(error.code, error.headers, error)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"cannot reach {base}: {reason_of(error)}") from error

    return send


@contextmanager
def over_kept_network(url: str, key: str | None, *, timeout_s: float = TIMEOUT_S) -> Iterator[Send]:
    """As `over_network`, over a connection that is kept until the block ends: for commands of thousands of calls.

    Slower to load, and so nothing for the others.
    """
    import ssl

    import httpx2

    base, host = _address(url)
    authorization = _authorization(key)

    def send(call: Call) -> Answer:
        headers = headers_of(call) | authorization
        try:
            with client.stream(call.method, base + call.path, content=call.content, headers=headers) as response:
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _MAX_ANSWER_BYTES:
                        raise CommandFailed("the answer is far too long to be Lifesign's")
                told = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status_code, told, bytes(content))
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise Unreachable(f"cannot reach {base}: {_reason_below(error)}") from error

    with httpx2.Client(
        # The roots of this machine, as the other commands trust them.
        verify=ssl.create_default_context(),
        timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, TIMEOUT_S)),
        trust_env=host not in _LOOPBACK,
        follow_redirects=False,
    ) as client:
        yield send


def _address(url: str) -> tuple[str, str]:
    """The base of every address, and its host. Raises WrongUsage."""
    base = url.rstrip("/")
    try:
        parts = urlsplit(base)
        host = (
            parts.hostname if parts.scheme in {"http", "https"} and parts.username is None and parts.port != 0 else None
        )
    except ValueError:
        host = None
    if not host:
        raise WrongUsage(f"{url!r} is not the address of a server; write for example http://127.0.0.1:8080")
    return base, host


def _authorization(key: str | None) -> dict[str, str]:
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise WrongUsage("the key has characters that no key has; was it copied whole, without line breaks?")
    return {"Authorization": f"Bearer {key}"} if key else {}


class Api:
    """The server's API, as the commands use it. Every method raises Unreachable, Refused and CommandFailed."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def get(self, path: str, **query: Json) -> dict[str, Json]:
        return self.call("GET", path, query=query)

    def post(self, path: str, body: Json = None, headers: Mapping[str, str] | None = None) -> dict[str, Json]:
        return self.call("POST", path, body=body, headers=headers)

    def put(self, path: str, body: Json) -> dict[str, Json]:
        return self.call("PUT", path, body=body)

    def patch(self, path: str, body: Json) -> dict[str, Json]:
        return self.call("PATCH", path, body=body)

    def delete(self, path: str, **query: Json) -> None:
        self.call("DELETE", path, query=query)

    def rows(self, path: str, name: str, limit: int | None, **query: Json) -> dict[str, Json]:
        """A list of up to `limit` rows (None: all), page after page, in the shape of one answer."""
        rows: list[Json] = []
        cursor = None
        while True:
            size = MAX_PAGE if limit is None else min(limit - len(rows), MAX_PAGE)
            page = self.get(path, **query, limit=size, cursor=cursor)
            rows += page.get(name, [])
            cursor = page.get("nextCursor")
            if cursor is None:
                return {name: rows}
            if limit is not None and len(rows) >= limit:
                return {name: rows, "nextCursor": cursor}

    def call(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        query: Mapping[str, Json] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Json]:
        wanted = {name: value for name, value in (query or {}).items() if value is not None and value != []}
        target = f"{path}?{urlencode(wanted, doseq=True)}" if wanted else path
        content = None if body is None else encoded(body)
        return understood(self._send(Call(method, target, content, headers or {})), path)


def understood(answer: Answer, path: str) -> dict[str, Json]:
    """The JSON of a good answer, `{}` of an empty one. Raises Refused for a 4xx, CommandFailed for any other.

    path: what was asked for, so that a refusal can name what is missing.
    """
    if answer.status == _NO_CONTENT:
        return {}
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise CommandFailed(
            f"got an answer with status {answer.status} that is not Lifesign's; "
            "does the address belong to a Lifesign server?"
        )
    if 200 <= answer.status <= 299:  # noqa: PLR2004 - the class of statuses
        return body
    message = _refusal(body, answer.status, path)
    if 400 <= answer.status <= 499:  # noqa: PLR2004 - the class of statuses
        raise Refused(message, status=answer.status)
    raise CommandFailed(message)


def segment(text: str) -> str:
    """A value as one segment of a path. Raises WrongUsage where it would mean another path."""
    if text in {"", ".", ".."}:
        raise WrongUsage(f"{text!r} is neither an id nor a slug")
    return quote(text, safe="")


def encoded(body: Json) -> bytes:
    """A body as it travels. Raises WrongUsage."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise WrongUsage("the command line has text that is not valid UTF-8") from None
    except ValueError:
        raise WrongUsage("JSON knows neither NaN nor Infinity") from None


def headers_of(call: Call) -> dict[str, str]:
    """The headers a call is sent with."""
    # Without a type of ours, urllib would call a body an HTML form.
    content_type = {} if call.content is None else {"Content-Type": "application/json"}
    return {"User-Agent": "lifesign-cli", "Accept": "application/json", **content_type, **call.headers}


def answer_of(status: int, headers: "Message", body: _Body) -> Answer:
    """A whole response. Raises CommandFailed for one without end."""
    content = body.read(_MAX_ANSWER_BYTES + 1)
    if len(content) > _MAX_ANSWER_BYTES:
        raise CommandFailed("the answer is far too long to be Lifesign's")
    return Answer(status, {name.lower(): value for name, value in headers.items()}, content)


def _refusal(body: dict[str, Json], status: int, path: str) -> str:
    error = body.get("error")
    told = error if isinstance(error, dict) else {}
    message = told.get("message") or body.get("message")
    lines = [str(message or f"the server answered with status {status}")]
    if status == _UNAUTHORIZED:
        lines[0] += f"; {GET_A_KEY}"
    elif status == _NOT_FOUND:
        lines[0] += f": {path}"
    return "\n  ".join([*lines, *_details(told.get("details")), *_flaws(body.get("data"))])


def _details(details: Json) -> list[str]:
    match details:
        # The message tells the first fault already; a list of one would say it twice.
        case [_, _, *_]:
            return [_fault(each) for each in details if isinstance(each, dict)]
        case {"users": list() as users}:
            named = [each for each in users if isinstance(each, dict)]
            return [f"used by {each.get('type')} {each.get('name')} ({each.get('id')})" for each in named]
        case {"scopes": list() as scopes}:
            return [f"the key lacks the scope {each}" for each in scopes]
        case _:
            return []


def _flaws(data: Json) -> list[str]:
    """What is wrong with a request, as the Systems API says it: each by a word only."""
    errors = data.get("errors", []) if isinstance(data, dict) else []
    named = [each for each in errors if isinstance(each, dict)]
    return [
        f"{each.get('key')}: {str(each.get('message')).replace('_', ' ')}"
        + (f" (not {str(each['value'])[:_MAX_SHOWN_VALUE]!r})" if each.get("value") else "")
        for each in named
    ]


def _fault(fault: dict[str, Json]) -> str:
    line = f"{fault.get('field')}: {fault.get('message')}"
    return (
        f"{line} (not {json.dumps(fault['value'], ensure_ascii=False)[:_MAX_SHOWN_VALUE]})"
        if "value" in fault
        else line
    )


def reason_of(error: BaseException) -> str:
    """Why nobody could be reached, in a few words."""
    # A URLError wraps what went wrong below it.
    inner = getattr(error, "reason", None)
    inner = inner if isinstance(inner, BaseException) else error
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, ConnectionRefusedError):
        return "connection refused; is the server running there?"
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return text or type(inner).__name__


def _reason_below(error: BaseException) -> str:
    """The reason that the library wrapped, where the system gave one."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, OSError):
        below = below.__cause__ or below.__context__
    return reason_of(below or error)


def required_key(key: str | None) -> str:
    """The key, which there must be. Raises WrongUsage, with the way to one."""
    if not key:
        raise WrongUsage(f"no API key: set LIFESIGN_KEY, or give --key; {GET_A_KEY}")
    return key
