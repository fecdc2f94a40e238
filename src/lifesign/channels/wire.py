"""Sockets for the HTTP client that tell the truth about what was written.

httpcore2's own network backend reports a write as done when the connection broke during it: asyncio's transport takes
the bytes, notes the error, and tells nobody before the next call. For a notification the difference is between
"certainly not delivered, try again" and "may have arrived", so every write here is followed by a second, empty one,
which fails if the first did not get through to the kernel.
"""

import select
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, Final

import anyio
import anyio.abc
import anyio.streams.tls
import httpcore2


class WireBackend(httpcore2.AsyncNetworkBackend):
    """Connects over TCP; what it returns is a `WireStream`."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises ConnectError, ConnectTimeout."""
        try:
            with anyio.fail_after(timeout):
                stream = await anyio.connect_tcp(host, port, local_host=local_address)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout from error
        except (OSError, UnicodeError, anyio.BrokenResourceError) as error:
            raise httpcore2.ConnectError from error
        wire = WireStream(_CheckedStream(stream))
        for option in socket_options or ():
            wire.get_extra_info("socket").setsockopt(*option)
        return wire

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _CheckedStream(anyio.abc.ByteStream):
    """A byte stream whose `send` fails when the bytes were not handed to the kernel."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)
        await self._stream.send(b"")

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        return await self._stream.receive(max_bytes)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()

    @property
    def extra_attributes(self) -> Any:  # Any: the mapping of the base class has keys of any type
        return self._stream.extra_attributes


class WireStream(httpcore2.AsyncNetworkStream):
    """A connection, plain or TLS, with the exceptions that httpcore2 knows."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface
        try:
            with anyio.fail_after(timeout):
                return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except TimeoutError as error:
            raise httpcore2.ReadTimeout from error
        except _BROKEN as error:
            raise httpcore2.ReadError from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface
        if not buffer:
            return
        try:
            with anyio.fail_after(timeout):
                await self._stream.send(buffer)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout from error
        except _BROKEN as error:
            raise httpcore2.WriteError from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature of the interface
    ) -> httpcore2.AsyncNetworkStream:
        """Raises ConnectError, ConnectTimeout; the connection is closed then."""
        try:
            with anyio.fail_after(timeout):
                # Not "standard compatible": many servers hang up without the closing handshake, after a whole answer.
                secure = await anyio.streams.tls.TLSStream.wrap(
                    self._stream,
                    ssl_context=ssl_context,
                    hostname=server_hostname,
                    server_side=False,
                    standard_compatible=False,
                )
        except TimeoutError as error:
            await self.aclose()
            raise httpcore2.ConnectTimeout from error
        except (*_BROKEN, anyio.EndOfStream, ValueError) as error:  # ValueError: a name that no certificate can have
            await self.aclose()
            raise httpcore2.ConnectError from error
        except BaseException:
            await self.aclose()
            raise
        return WireStream(secure)

    def get_extra_info(self, info: str) -> Any:  # Any: the interface; each name has a type of its own
        attribute = _EXTRAS.get(info)
        value = None if attribute is None else self._stream.extra(attribute, None)  # noqa: S610 - anyio, not Django
        return _is_readable(value) if info == "is_readable" else value


_EXTRAS: Final[Mapping[str, Any]] = {  # Any: an attribute of anyio is typed by the value it stands for
    "ssl_object": anyio.streams.tls.TLSAttribute.ssl_object,
    "client_addr": anyio.abc.SocketAttribute.local_address,
    "server_addr": anyio.abc.SocketAttribute.remote_address,
    "socket": anyio.abc.SocketAttribute.raw_socket,
    "is_readable": anyio.abc.SocketAttribute.raw_socket,
}
_BROKEN: Final = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)


def _is_readable(connection: socket.socket | None) -> bool:
    """Whether an idle connection has something to read, which can only be its end; a closed one has, too."""
    descriptor = -1 if connection is None else connection.fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
