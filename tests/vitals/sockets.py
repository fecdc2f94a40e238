"""A WebSocket to a node in this process: messages go to and fro as the server would hand them on."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.types import Message

from lifesign.vitals.signal.synth import Synthetic
from tests.harness import Json, Lifesign

PATH = "/api/vitals/stream"
# A bound on hanging.
_LONGEST_S = 60.0


@dataclass
class Socket:
    """One end; `closed` is the code with which the server ended it."""

    to_server: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    from_server: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    closed: int | None = None
    seq: int = 0

    def say(self, message: Json) -> None:
        self.say_text(json.dumps(message))

    def say_text(self, text: str) -> None:
        self.to_server.put_nowait({"type": "websocket.receive", "text": text})

    def start(self, token: str, **members: object) -> None:
        self.say({"type": "start", "token": token, "fps": 15, "client": "test"} | members)

    def frames(self, made: Synthetic, since: int, until: int, **members: object) -> None:
        """Send some of a recording."""
        times, rgb = made.t_ms[since:until].round(2).tolist(), made.rgb[since:until].round(3).tolist()
        self.say({"type": "frames", "seq": self.seq, "t": times, "rgb": rgb} | members)
        self.seq += 1

    async def hear(self, kind: str = "") -> Json:
        """The next message, of this kind if one is named."""
        while True:
            async with asyncio.timeout(_LONGEST_S):
                message = await self.from_server.get()
            if message["type"] == "websocket.close":
                self.closed = message.get("code", 1000)
                raise AssertionError(f"closed with {self.closed} where {kind or 'a message'} was expected")
            if message["type"] == "websocket.send":
                said: Json = json.loads(message["text"])
                if not kind or said["type"] == kind:
                    return said

    async def end(self) -> tuple[int, list[Json]]:
        """The code with which the server closes, and what it said before."""
        said: list[Json] = []
        while True:
            async with asyncio.timeout(_LONGEST_S):
                message = await self.from_server.get()
            if message["type"] == "websocket.close":
                return message.get("code", 1000), said
            if message["type"] == "websocket.send":
                said.append(json.loads(message["text"]))


@asynccontextmanager
async def connected(lifesign: Lifesign, *, origin: str | None = None, room: int = 0) -> AsyncIterator[Socket]:
    """A connection to the stream, which is gone at the end of the block.

    room: for how many messages there is, until they are read; 0: for any number.
    """
    socket = Socket(from_server=asyncio.Queue(room))
    headers = [(b"host", b"lifesign.test")]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    scope = {
        "type": "websocket",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "headers": headers,
        "scheme": "ws",
        "server": ("lifesign.test", 80),
        "client": ("127.0.0.1", 1),
        "subprotocols": [],
        "state": {},
    }
    socket.to_server.put_nowait({"type": "websocket.connect"})
    serving = asyncio.ensure_future(lifesign.node.app(scope, socket.to_server.get, socket.from_server.put))
    try:
        yield socket
    finally:
        socket.to_server.put_nowait({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(_LONGEST_S):
            await serving
