"""What the server and the process of a run say to each other: frames of JSON, each question with one answer."""

import asyncio
import struct
from typing import Any, Literal

import msgspec

_LENGTH = struct.Struct(">I")
MAX_FRAME_BYTES = 16 * 1024 * 1024


class ConnectionLost(Exception):
    """The other side is gone, or says what cannot be understood."""


# Any, in these: JSON.
class Provider(msgspec.Struct, frozen=True):
    """Where models are. base_url: None for the vendor's own. is_guarded: private addresses are refused."""

    kind: Literal["openai", "anthropic"]
    base_url: str | None
    api_key: str | None
    is_guarded: bool = True


class Guard(msgspec.Struct, frozen=True):
    """The operator's allowances, as `channels.targets.GuardPolicy` has them."""

    allow_private: bool = False
    networks: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


class Tool(msgspec.Struct, frozen=True):
    """A tool as the model sees it. place: who executes it."""

    name: str
    description: str
    schema: dict[str, Any]
    place: Literal["server", "process"] = "server"


class McpServer(msgspec.Struct, frozen=True):
    """A server of tools: at a URL, or a program. tools: which may be used; None for all."""

    name: str
    tools: tuple[str, ...] | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    cwd: str | None = None


class Exchange(msgspec.Struct, frozen=True):
    """What was asked and answered earlier."""

    prompt: str
    answer: str


class Job(msgspec.Struct, frozen=True):
    """All that the process of a run knows."""

    run_id: str
    provider: Provider
    models: tuple[str, ...]
    system: str
    prompt: str
    max_output_tokens: int
    timeout_s: float
    history: tuple[Exchange, ...] = ()
    tools: tuple[Tool, ...] = ()
    servers: tuple[McpServer, ...] = ()
    guard: Guard = Guard()
    ca_file: str | None = None
    messages: str | None = None
    """Of a run that was parked: what had been said."""


# From the process of a run ---------------------------------------------------------------------------------------
class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """May a request be made? Answered by Allowed or Stop."""

    model: str
    body_bytes: int


class Spent(msgspec.Struct, frozen=True, tag="spent"):
    """A response came, or none did. Answered by Noted. error: why it is of no use."""

    model: str
    started_ns: int
    ended_ns: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    is_estimated: bool = False
    error: str | None = None
    finish_reason: str | None = None


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A line of the transcript. Answered by Noted."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    more: dict[str, Any] = {}


class Call(msgspec.Struct, frozen=True, tag="call"):
    """The model wants a tool. is_known: it has one of this name. Answered by Result, Go, Stop or Park."""

    tool: str
    call_id: str
    arguments: dict[str, Any]
    is_known: bool = True


class Called(msgspec.Struct, frozen=True, tag="called"):
    """What a tool that the process executed gave. Answered by Noted."""

    tool: str
    call_id: str
    result: str
    started_ns: int
    ended_ns: int
    is_failed: bool = False


class Parked(msgspec.Struct, frozen=True, tag="parked"):
    """The run waits for somebody; what was said so far. No answer."""

    tool: str
    call_id: str
    arguments: dict[str, Any]
    messages: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The run has ended. report: of the tool, as the model wrote it. No answer."""

    status: Literal["success", "error"]
    reason: str | None = None
    response: str | None = None
    error_message: str | None = None
    report: dict[str, Any] | None = None


FromProcess = Ask | Spent | Said | Call | Called | Parked | Done


# To the process of a run -----------------------------------------------------------------------------------------
class Allowed(msgspec.Struct, frozen=True, tag="allowed"):
    """Make the request, for at most so many tokens of output."""

    max_tokens: int


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The run ends here."""

    reason: str
    why: str


class Go(msgspec.Struct, frozen=True, tag="go"):
    """Execute the tool."""


class Result(msgspec.Struct, frozen=True, tag="result"):
    """What the tool gave, or why it is refused."""

    text: str


class Park(msgspec.Struct, frozen=True, tag="park"):
    """Somebody is to be asked first; give back what was said, and end."""


class Noted(msgspec.Struct, frozen=True, tag="noted"):
    """Nothing to add."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """End, whatever is under way. No question was asked."""


ToProcess = Allowed | Stop | Go | Result | Park | Noted | Cancel

_from_process: msgspec.json.Decoder[FromProcess] = msgspec.json.Decoder(FromProcess)
_to_process: msgspec.json.Decoder[ToProcess] = msgspec.json.Decoder(ToProcess)
_job: msgspec.json.Decoder[Job] = msgspec.json.Decoder(Job)


def framed(message: msgspec.Struct) -> bytes:
    """A message on its way."""
    content = msgspec.json.encode(message)
    return _LENGTH.pack(len(content)) + content


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame. Raises ConnectionLost."""
    try:
        (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if size > MAX_FRAME_BYTES:
            raise ConnectionLost
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, OSError) as error:
        raise ConnectionLost from error


async def next_from_process(reader: asyncio.StreamReader) -> FromProcess:
    """What the process of a run says next. Raises ConnectionLost."""
    try:
        return _from_process.decode(await _frame(reader))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConnectionLost from error


async def next_to_process(reader: asyncio.StreamReader) -> ToProcess:
    """What the server says next. Raises ConnectionLost."""
    return _to_process.decode(await _frame(reader))


async def job_from(reader: asyncio.StreamReader) -> Job:
    """What a run is about, the first that the server says. Raises ConnectionLost."""
    return _job.decode(await _frame(reader))
