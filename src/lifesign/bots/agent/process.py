"""The process of a run: the conversation with the model, and the tools it wants.

What it says and spends is told to the server at once, so that an end by force loses at most the response in flight.
"""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Sequence
from typing import Any, Final

from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from lifesign.bots.agent.messages import (
    Ask,
    Call,
    Called,
    Cancel,
    ConnectionLost,
    Done,
    Go,
    Job,
    Park,
    Parked,
    Result,
    Said,
    Spent,
    Stop,
    ToProcess,
    framed,
    job_from,
    next_to_process,
)
from lifesign.bots.agent.models import Answered, ModelFailed, Models, Stopped
from lifesign.bots.agent.network import Network
from lifesign.bots.agent.tools import ToolFailed, as_data, clipped, http_get

REPORT: Final = "report"
_LIMIT_BYTES: Final = 16 * 1024 * 1024

Question = Ask | Spent | Said | Call | Called


def main(channel: socket.socket) -> int:
    """Do one run; the exit code."""
    try:
        asyncio.run(_main(channel))
    except (ConnectionLost, asyncio.CancelledError):
        return 1
    return 0


async def _main(channel: socket.socket) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=_LIMIT_BYTES)
    job = await job_from(reader)
    server = Server(reader, writer)
    work = asyncio.create_task(_Run(job, server).done())
    listening = asyncio.create_task(server.listen())
    # The server says that it is over, or is gone: then so is this.
    await asyncio.wait({work, listening}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return
    listening.cancel()
    error = work.exception()
    if error is not None and not isinstance(error, ConnectionLost):
        await server.tell(_fault(error))


def _fault(error: BaseException) -> Done:
    """The end of a run in which something was raised that should not be. Its words may hold anything."""
    if isinstance(error, MemoryError):
        return Done("error", "tool_crash", error_message="The run needed more memory than it may have")
    return Done("error", "runner_error", error_message=f"A fault in the process of the run: {type(error).__name__}")


class Server:
    """The other side, as the process of a run sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()
        self._answers: asyncio.Queue[ToProcess] = asyncio.Queue()

    async def listen(self) -> None:
        """Take what the server says, until it wants an end."""
        with contextlib.suppress(ConnectionLost):
            while not isinstance(said := await next_to_process(self._reader), Cancel):
                self._answers.put_nowait(said)

    async def ask(self, question: Question) -> ToProcess:
        """What the server says to this. Raises ConnectionLost."""
        async with self._turn:
            await self.tell(question)
            return await self._answers.get()

    async def tell(self, message: Question | Parked | Done) -> None:
        """Say something. Raises ConnectionLost."""
        try:
            self._writer.write(framed(message))
            await self._writer.drain()
        except OSError as error:
            raise ConnectionLost from error


class _Ended(Exception):
    """The run has its end. words: the last of it."""

    def __init__(self, words: Done | Parked) -> None:
        super().__init__()
        self.words = words


class _Run:
    """One run."""

    def __init__(self, job: Job, server: Server) -> None:
        self._job = job
        self._server = server
        self._messages: list[ModelMessage] = []
        self._results: list[ToolReturnPart] = []
        """Of the calls of the last response, those that were done."""
        # Whatever a model asks for goes through the guard, wherever the model itself is.
        self._outside = Network(job.guard, job.ca_file)
        self._provider = Network(job.guard, job.ca_file, is_guarded=job.provider.is_guarded)

    async def done(self) -> None:
        """Converse until there is an end, and tell it before anything is closed: that may take its time."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._outside.aclose)
            stack.push_async_callback(self._provider.aclose)
            self._models = Models(self._job, self._provider, self._server.ask)
            await self._server.tell(await self._words(stack))

    async def _words(self, stack: contextlib.AsyncExitStack) -> Done | Parked:
        """Converse until there is an end. Nothing is raised: what holds connections to servers would wrap it."""
        try:
            self._remote = await self._connected(stack)
            await self._converse()
        except _Ended as ended:
            return ended.words
        except Stopped as stopped:
            return Done("error", stopped.stop.reason, error_message=stopped.stop.why)
        except ModelFailed as failure:
            return Done("error", "provider_error", error_message=str(failure))
        raise ConnectionLost

    async def _connected(self, stack: contextlib.AsyncExitStack) -> Any:  # Any: imported where it is needed
        if not self._job.servers:
            return None
        from lifesign.bots.agent.servers import Servers  # noqa: PLC0415 - 11 MiB, for those who need it

        try:
            remote = await stack.enter_async_context(Servers.connected(self._job.servers, self._outside))
        except ToolFailed as error:
            raise _Ended(Done("error", "tool_crash", error_message=str(error))) from error
        self._models.offer(remote.definitions)
        return remote

    async def _converse(self) -> None:
        await self._begin()
        while True:
            answered = await self._models.answer(self._messages)
            self._messages.append(answered.response)
            await self._say_answer(answered)
            if not answered.calls:
                self._end_with(answered)
            await self._execute(answered.calls, answered.text)

    async def _begin(self) -> None:
        job = self._job
        if job.messages is not None:
            self._messages = list(ModelMessagesTypeAdapter.validate_json(job.messages))
            await self._resume()
            return
        # One leading system message only; earlier answers are what a model wrote, so they are data.
        system = SystemPromptPart(job.system)
        for exchange in job.history:
            self._messages.append(ModelRequest(parts=[system, UserPromptPart(exchange.prompt)]))
            self._messages.append(ModelResponse(parts=[TextPart(as_data("an earlier run", exchange.answer))]))
        self._messages.append(ModelRequest(parts=[system, UserPromptPart(job.prompt)]))
        for message in self._messages[1:]:
            if isinstance(message, ModelRequest):
                message.parts = [part for part in message.parts if not isinstance(part, SystemPromptPart)]
        await self._server.ask(Said("system", job.system))
        await self._server.ask(Said("user", job.prompt))

    async def _resume(self) -> None:
        """Go on where the run was parked: with the calls of the last response that were not done."""
        if isinstance(last := self._messages[-1], ModelRequest):
            self._results = [part for part in last.parts if isinstance(part, ToolReturnPart)]
            self._messages.pop()
        last = self._messages[-1]
        if isinstance(last, ModelResponse):
            done = {part.tool_call_id for part in self._results}
            calls = [part for part in last.parts if isinstance(part, ToolCallPart) and part.tool_call_id not in done]
            await self._execute(calls, "".join(part.content for part in last.parts if isinstance(part, TextPart)))

    async def _say_answer(self, answered: Answered) -> None:
        usage = answered.usage
        more: dict[str, Any] = {
            "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        }
        if answered.calls:
            more["tool_calls"] = [
                {"id": call.tool_call_id, "name": call.tool_name, "arguments": _arguments(call) or {}}
                for call in answered.calls
            ]
        await self._server.ask(Said("assistant", answered.text, more))

    def _end_with(self, answered: Answered) -> None:
        text = answered.text.strip()
        if not text:
            why = "The model gave no answer"
            if answered.response.finish_reason == "length":
                why += " within the tokens it may use"
            raise _Ended(Done("error", "invalid_output", error_message=why))
        raise _Ended(Done("success", response=text))

    async def _execute(self, calls: Sequence[ToolCallPart], text: str) -> None:
        """Have the calls of a response done, one after the other."""
        for call in calls:
            result = await self._result(call, text)
            self._results.append(ToolReturnPart(call.tool_name, result, tool_call_id=call.tool_call_id))
        self._messages.append(ModelRequest(parts=self._results))
        self._results = []

    async def _result(self, call: ToolCallPart, text: str) -> str:
        arguments = _arguments(call)
        if arguments is None:
            return await self._noted(call, "The arguments are not a JSON object")
        if call.tool_name == REPORT:
            why = _fault_of(arguments)
            if why is not None:
                return await self._noted(call, why)
            words = f"{arguments['title']}\n\n{arguments.get('body') or ''}".strip()
            raise _Ended(Done("success", response=text.strip() or words, report=arguments))
        name = call.tool_name
        place = next((each.place for each in self._job.tools if each.name == name), None)
        if self._remote is not None and place is None:
            place = "process" if self._remote.knows(name) else None
            name = self._remote.title_of(name)
        said = await self._server.ask(Call(name, call.tool_call_id, arguments, is_known=place is not None))
        match said:
            case Result():
                return as_data(name, said.text) if place is not None else said.text
            case Stop():
                raise Stopped(said)
            case Park():
                done = [ModelRequest(parts=self._results)] if self._results else []
                kept = ModelMessagesTypeAdapter.dump_json([*self._messages, *done]).decode()
                raise _Ended(Parked(name, call.tool_call_id, arguments, kept))
            case Go():
                return await self._executed(call, name, arguments)
            case _:
                raise ConnectionLost

    async def _executed(self, call: ToolCallPart, name: str, arguments: dict[str, Any]) -> str:
        started = _now_ns()
        is_failed = False
        try:
            if self._remote is not None and self._remote.knows(call.tool_name):
                text = await self._remote.call(call.tool_name, arguments)
            else:
                text = await http_get(self._outside, arguments)
        except ToolFailed as error:
            text, is_failed = f"Failed: {error}", True
        text = clipped(text)
        await self._server.ask(Called(name, call.tool_call_id, text, started, _now_ns(), is_failed=is_failed))
        return as_data(name, text)

    async def _noted(self, call: ToolCallPart, why: str) -> str:
        """A call that cannot be done as it is."""
        await self._server.ask(Said("tool", why, {"tool_call_id": call.tool_call_id, "name": call.tool_name}))
        return why


def _arguments(call: ToolCallPart) -> dict[str, Any] | None:
    """What the model wants the tool to be called with; None when that is no object."""
    told = call.args
    if isinstance(told, str):
        try:
            told = json.loads(told or "{}")
        except ValueError:
            return None
    if told is None:
        return {}
    return told if isinstance(told, dict) else None


def _fault_of(report: dict[str, Any]) -> str | None:
    """What is wrong with a report, for the model; None when nothing is."""
    if not isinstance(report.get("title"), str) or not report["title"].strip():
        return "report: title must be a text"
    if not isinstance(report.get("noteworthy"), bool):
        return "report: noteworthy must be true or false"
    if report.get("severity", "info") not in {"info", "warning", "critical"}:
        return "report: severity must be info, warning or critical"
    for name in ("body", "dedupe_key"):
        if not isinstance(report.get(name, ""), str | None):
            return f"report: {name} must be a text"
    return None


def _now_ns() -> int:
    return time.time_ns()  # noqa: TID251 - spans of a process without the server's clock
