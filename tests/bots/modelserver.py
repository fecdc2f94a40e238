"""A server of language models on a real socket, which answers as each test's script says.

Scripts are by the name of the model, so that one server serves many tests: a list of entries, consumed one a request;
the last one goes on for ever. An entry is one of
`{"say": "text"}`, `{"calls": [("tool", {...}), ...], "say": "..."}`, both with `usage: (in, out)`, or `usage: None`
for an answer without, and `held: True` for one that waits until it is released; `{"status": 500, "body": "...",
"headers": {...}}`, `{"hang": True}`, `{"drop": True}`, `{"garbage": "..."}`. It speaks Chat Completions, and
the Messages API where the path is that of it. At `/mcp` it is a server of tools, with one tool, `echo`.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]  # Any: JSON
_USAGE = (100, 50)


@dataclass(slots=True)
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: Json

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Role and text of each message."""
        return [(each["role"], _plain(each.get("content"))) for each in self.body["messages"]]

    @property
    def tools(self) -> set[str]:
        """Names of the tools that were offered."""
        return {each.get("function", each)["name"] for each in self.body.get("tools", [])}


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(each.get("text", each.get("content", ""))) for each in content)
    return content or ""


@dataclass(slots=True)
class ModelServer:
    """The server, and what it was asked."""

    port: int = 0
    scripts: dict[str, list[Json]] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    _held: dict[str, asyncio.Event] = field(default_factory=dict)
    _came: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _connections: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, *entries: Json, beginning: str = "model") -> str:
        """A model of its own that answers so; its name."""
        name = f"{beginning}-{next(self._numbers)}"
        self.scripts[name] = list(entries)
        return name

    def asked(self, model: str) -> list[Asked]:
        """What a model was asked."""
        return [each for each in self.requests if each.body.get("model") == model]

    def release(self, model: str) -> None:
        """Let the answers of a model go that are held."""
        self._held.setdefault(model, asyncio.Event()).set()

    async def wait_for(self, model: str, count: int = 1) -> None:
        """Return once a model was asked so often."""
        async with asyncio.timeout(30):
            while len(self.asked(model)) < count:
                self._came.clear()
                await self._came.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (asked := await _request(reader)) is not None:
                self.requests.append(asked)
                self._came.set()
                if not await self._answer(asked, writer):
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        entries = self.scripts.get(asked.body.get("model", ""), [{"status": 404, "body": "no such model"}])
        entry = entries.pop(0) if len(entries) > 1 else entries[0]
        if entry.get("hang"):
            await asyncio.Event().wait()
        if entry.get("held"):
            await self._held.setdefault(asked.body["model"], asyncio.Event()).wait()
        if entry.get("drop"):
            return False
        status, headers = entry.get("status", 200), {"content-type": "application/json"} | entry.get("headers", {})
        if asked.path == "/mcp":
            told = mcp_answer(asked.body)
            status, entry = (202, {"garbage": ""}) if told is None else (200, {"garbage": json.dumps(told)})
        if "garbage" in entry:
            body = entry["garbage"]
        elif status != 200:
            body = entry.get("body", json.dumps({"error": {"message": "scripted"}}))
        elif asked.path.endswith("/messages"):
            body = json.dumps(self._message(asked, entry))
        else:
            body = json.dumps(self._completion(asked, entry))
        content = body.encode()
        lines = [f"HTTP/1.1 {status} Scripted", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()
        return True

    def _completion(self, asked: Asked, entry: Json) -> Json:
        message: Json = {"role": "assistant", "content": entry.get("say")}
        calls = [
            {
                "id": f"call_{next(self._numbers)}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                },
            }
            for name, arguments in entry.get("calls", [])
        ]
        if calls:
            message["tool_calls"] = calls
        body: Json = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": asked.body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}],
        }
        usage = entry.get("usage", _USAGE)
        if usage is not None:
            body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
        return body

    def _message(self, asked: Asked, entry: Json) -> Json:
        content: list[Json] = [{"type": "text", "text": entry["say"]}] if entry.get("say") else []
        content += [
            {"type": "tool_use", "id": f"toolu_{next(self._numbers)}", "name": name, "input": arguments}
            for name, arguments in entry.get("calls", [])
        ]
        usage = entry.get("usage", _USAGE)
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": asked.body["model"],
            "content": content,
            "stop_reason": "tool_use" if entry.get("calls") else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": usage[0], "output_tokens": usage[1]},
        }

    async def close(self) -> None:
        """End every connection."""
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Asked | None:
    head = b""
    with contextlib.suppress(asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(first.split(" ")[1], headers, json.loads(content) if content else {})


def mcp_answer(asked: Json) -> Json | None:
    """What a server of tools says; None to what wants no answer."""
    match asked.get("method"):
        case "initialize":
            result: Json = {
                "protocolVersion": asked["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted", "version": "1"},
            }
        case "tools/list":
            schema = {"type": "object", "properties": {"text": {"type": "string"}}}
            names = ("echo", "secret")
            result = {"tools": [{"name": each, "description": "Says it.", "inputSchema": schema} for each in names]}
        case "tools/call":
            result = {"content": [{"type": "text", "text": f"echo: {asked['params']['arguments'].get('text')}"}]}
        case _:
            return None
    return {"jsonrpc": "2.0", "id": asked["id"], "result": result}


@asynccontextmanager
async def model_server() -> AsyncIterator[ModelServer]:
    """A server that runs."""
    server = ModelServer()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.close()
