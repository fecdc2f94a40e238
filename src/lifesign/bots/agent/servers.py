"""Servers of tools that speak the Model Context Protocol: at a URL, or programs of the operator.

A program has a keeper, so that it ends with the run, with all that it has begun, whatever becomes of the run.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
import httpx2
from mcp_types import CallToolResult, PaginatedRequestParams, TextContent, jsonrpc_message_adapter
from pydantic_ai.tools import ToolDefinition

from lifesign.bots.agent.keeping import kept
from lifesign.bots.agent.messages import McpServer
from lifesign.bots.agent.network import Network
from lifesign.bots.agent.protocol import ClientSession, SessionMessage, streamable_http_client
from lifesign.bots.agent.tools import ToolFailed

_CONNECT_S: Final = 15.0
_LONGEST_NAME: Final = 64
_MOST_TOOLS: Final = 200
_LONGEST_LINE: Final = 8 * 1024 * 1024
_LONGEST_DESCRIPTION: Final = 2000
_ALL_PAGES: Final = 20


@dataclass(frozen=True, slots=True)
class _Tool:
    session: ClientSession
    name: str
    title: str
    """As lists of tools name it."""


class Servers:
    """The tools of all servers that a run may use."""

    def __init__(self) -> None:
        self._tools: dict[str, _Tool] = {}
        self.definitions: list[ToolDefinition] = []

    @classmethod
    @asynccontextmanager
    async def connected(cls, servers: Sequence[McpServer], network: Network) -> AsyncIterator["Servers"]:
        """Connect to all of them. Raises ToolFailed."""
        found = cls()
        failure: ToolFailed | None = None
        has_ended = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                failure = await found._connect(servers, network, stack)
                if failure is None:
                    yield found
                    has_ended = True
        except Exception as error:
            # What goes wrong with a stranger's server while connections are closed is nobody's concern any more.
            if not has_ended and failure is None:
                raise ToolFailed("A server of tools broke the connection") from error
        # Not from within the stack, where it would be wrapped.
        if failure is not None:
            raise failure

    async def _connect(
        self, servers: Sequence[McpServer], network: Network, stack: contextlib.AsyncExitStack
    ) -> ToolFailed | None:
        """Connect to all of them; why one cannot be used."""
        for server in servers:
            try:
                async with asyncio.timeout(_CONNECT_S):
                    session = await stack.enter_async_context(_session(server, network))
                    await session.initialize()
                    await self._learn(server, session)
            except Exception as error:  # noqa: BLE001 - whatever a stranger makes of the protocol
                # Its words may hold anything.
                return ToolFailed(f"The server of tools {server.name!r} cannot be used: {type(error).__name__}")
        return None

    async def _learn(self, server: McpServer, session: ClientSession) -> None:
        cursor: str | None = None
        for _ in range(_ALL_PAGES):
            listed = await session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
            for tool in listed.tools:
                if server.tools is not None and tool.name not in server.tools:
                    continue
                name = self._free_name(f"mcp_{server.name}_{tool.name}")
                self._tools[name] = _Tool(session, tool.name, f"mcp:{server.name}/{tool.name}")
                self.definitions.append(
                    ToolDefinition(
                        name=name,
                        description=(tool.description or "")[:_LONGEST_DESCRIPTION],
                        parameters_json_schema=dict(tool.input_schema),
                    )
                )
                if len(self._tools) >= _MOST_TOOLS:
                    return
            cursor = listed.next_cursor
            if cursor is None:
                return

    def _free_name(self, wanted: str) -> str:
        """A name that providers accept, and that no other tool has."""
        base = re.sub(r"[^A-Za-z0-9_-]", "_", wanted)[:_LONGEST_NAME]
        name, n = base, 2
        while name in self._tools:
            name, n = f"{base[: _LONGEST_NAME - 4]}_{n}", n + 1
        return name

    def knows(self, name: str) -> bool:
        """Whether a model's tool is one of these."""
        return name in self._tools

    def title_of(self, name: str) -> str:
        """What lists of tools call it."""
        return self._tools[name].title if name in self._tools else name

    async def call(self, name: str, arguments: dict[str, Any]) -> str:  # Any: JSON of the model
        """What a tool gives, as text. Raises ToolFailed."""
        tool = self._tools[name]
        try:
            result = await tool.session.call_tool(tool.name, arguments)
        except Exception as error:
            raise ToolFailed(f"the server of tools did not do it: {type(error).__name__}") from error
        if not isinstance(result, CallToolResult):
            raise ToolFailed("the server of tools wants to know more, and nobody is there to answer")
        texts = [each.text if isinstance(each, TextContent) else f"[{each.type}]" for each in result.content]
        text = "\n".join(texts)
        if result.is_error:
            raise ToolFailed(text or "the tool failed")
        return text


@asynccontextmanager
async def _session(server: McpServer, network: Network) -> AsyncIterator[ClientSession]:
    async with contextlib.AsyncExitStack() as stack:
        if server.url is not None:
            client = await stack.enter_async_context(
                httpx2.AsyncClient(transport=network.transport(), headers=server.headers, timeout=None, trust_env=False)
            )
            streams = await stack.enter_async_context(
                streamable_http_client(server.url, http_client=client, terminate_on_close=False)
            )
        else:
            streams = await stack.enter_async_context(_program(server))
        yield await stack.enter_async_context(ClientSession(*streams))


@asynccontextmanager
async def _program(server: McpServer) -> AsyncIterator[Any]:  # Any: streams, as the library names them
    """A program that speaks the protocol on its standard streams: a message a line."""
    program = await kept(
        server.argv, cwd=server.cwd, env=server.env, stderr=asyncio.subprocess.DEVNULL, limit=_LONGEST_LINE
    )
    process = program.process
    heard, told = process.stdout, process.stdin
    if heard is None or told is None:
        raise ToolFailed("the program has no standard streams")
    to_session, from_program = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_program, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def listen() -> None:
        async with to_session:
            with contextlib.suppress(ValueError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                while line := await heard.readline():
                    message = _message(line)
                    if message is not None:
                        await to_session.send(message)

    async def speak() -> None:
        async with from_session:
            async for message in from_session:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                told.write(text.encode() + b"\n")
                await told.drain()

    tasks = [asyncio.create_task(listen()), asyncio.create_task(speak())]
    try:
        yield from_program, to_program
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await program.ended()


def _message(line: bytes) -> SessionMessage | None:
    """A message of a line; None for a line that is none, such as a greeting."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError:
        return None
