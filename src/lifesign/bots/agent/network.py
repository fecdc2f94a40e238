"""The way out of the process of a run: the same guard and the same sockets as for messages of the server."""

import ipaddress
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpcore2
import httpx2

from lifesign.bots.agent.messages import Guard
from lifesign.channels.guard import GuardedBackend
from lifesign.channels.outbound import tls_context
from lifesign.channels.targets import AddressRefused, GuardPolicy
from lifesign.channels.wire import WireBackend

_CONNECT_S: Final = 10.0
_FAULTS: Final = (
    OSError,
    UnicodeError,
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.UnsupportedProtocol,
)


class NotReached(Exception):
    """There was no answer. The words never hold an address."""

    def __init__(self, why: str, *, is_refused: bool = False) -> None:
        super().__init__(why)
        self.is_refused = is_refused


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, read to its end or to a limit."""

    status: int
    headers: httpx2.Headers
    body: bytes
    is_whole: bool

    def as_response(self, request: httpx2.Request) -> httpx2.Response:
        """The same for whoever expects that of the client. The body is what was sent, so it is decoded there."""
        return httpx2.Response(self.status, headers=self.headers, content=self.body, request=request)


def policy_of(guard: Guard) -> GuardPolicy:
    """The operator's allowances."""
    networks = tuple(ipaddress.ip_network(each) for each in guard.networks)
    return GuardPolicy(guard.allow_private, networks, frozenset(guard.names))


class Network:
    """Requests, behind the guard or not."""

    def __init__(self, guard: Guard, ca_file: str | None, *, is_guarded: bool = True) -> None:
        backend = GuardedBackend(policy_of(guard)) if is_guarded else WireBackend()
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls_context(None if ca_file is None else Path(ca_file)),
            max_connections=16,
            keepalive_expiry=4.0,
            network_backend=backend,
        )

    async def send(
        self, method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes = b"", *, most_bytes: int
    ) -> Answer:
        """One request; no redirect is followed. Raises NotReached."""
        request = _request(method, url, headers, content)
        body, is_whole = bytearray(), True
        try:
            response = await self._pool.handle_async_request(request)
            try:
                async for chunk in _chunks(response):
                    body += chunk
                    if len(body) > most_bytes:
                        is_whole = False
                        break
            finally:
                await response.aclose()
        except AddressRefused as error:
            raise NotReached(str(error), is_refused=True) from error
        except _FAULTS as error:
            raise NotReached(_words(error)) from error
        kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
        return Answer(response.status, httpx2.Headers(kept), bytes(body[:most_bytes]), is_whole)

    def transport(self) -> "Transport":
        """The same for a client of httpx2 that reads as the answer comes."""
        return Transport(self._pool)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


def _request(method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes) -> httpcore2.Request:
    told = [(name.lower(), value) for name, value in headers if name.lower() not in {"content-length", "host"}]
    parsed = httpx2.URL(url)
    host = [("host", parsed.netloc.decode("ascii"))]
    length = [("content-length", str(len(content)))] if content else []
    return httpcore2.Request(
        method,
        httpcore2.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path),
        headers=[(name.encode("ascii"), value.strip().encode()) for name, value in [*host, *told, *length]],
        content=content,
        extensions={"timeout": {"connect": _CONNECT_S, "pool": _CONNECT_S}},
    )


async def _chunks(response: httpcore2.Response) -> AsyncIterator[bytes]:
    async for chunk in response.aiter_stream():
        yield chunk


def _words(error: Exception) -> str:
    if isinstance(error, httpcore2.ConnectError | httpcore2.ConnectTimeout | ConnectionRefusedError):
        return "no connection"
    if isinstance(error, TimeoutError | httpcore2.TimeoutException):
        return "no answer in time"
    return "the connection was lost before the answer"


class Transport(httpx2.AsyncBaseTransport):
    """The pool as a transport of httpx2. Closing it closes nothing: the pool belongs to the network."""

    def __init__(self, pool: httpcore2.AsyncConnectionPool) -> None:
        self._pool = pool

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request. Raises TransportError."""
        content = await request.aread()
        headers = request.headers.multi_items()
        try:
            response = await self._pool.handle_async_request(
                _request(request.method, str(request.url), headers, content)
            )
        except AddressRefused as error:
            raise httpx2.ConnectError(str(error), request=request) from error
        except _FAULTS as error:
            raise httpx2.ConnectError(_words(error), request=request) from error
        kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
        return httpx2.Response(response.status, headers=kept, stream=_Stream(response), request=request)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.aiter_stream():
                yield chunk
        except _FAULTS as error:
            raise httpx2.ReadError(_words(error)) from error

    async def aclose(self) -> None:
        await self._response.aclose()
