"""Language models: the one place that knows what providers and their libraries are like.

Requests are made by the libraries of the vendors, through `Wire`: it asks the server before each, lowers what a
response may cost, tries again what failed for a while, and tells what was spent.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition

from lifesign.bots.agent import lean
from lifesign.bots.agent.messages import Allowed, Ask, Job, Provider, Spent, Stop, ToProcess
from lifesign.bots.agent.network import Answer, Network, NotReached
from lifesign.bots.budget import estimated_tokens
from lifesign.channels.outbound import clean_text, retry_after_ms
from lifesign.clock import EpochMs

TRIES: Final = 3
_PAUSES_S: Final = (1.0, 4.0)
_MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_VENDOR_HOST: Final = "api.openai.com"
_MAX_WORDS: Final = 300
_TOO_MANY, _SERVER_FAULTS, _CLIENT_FAULTS = 429, 500, 400
_NS_PER_MS: Final = 1_000_000

Say = Callable[[Ask | Spent], Awaitable[ToProcess]]


class Stopped(Exception):
    """The server says that the run ends here."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.why)
        self.stop = stop


class ModelFailed(Exception):
    """No model gave an answer that is of use. The message is for whoever reads the log of the run."""

    def __init__(self, why: str, *, is_transient: bool) -> None:
        super().__init__(why)
        self.is_transient = is_transient


@dataclass(slots=True)
class Answered:
    """A response of a model."""

    response: ModelResponse
    text: str
    calls: Sequence[ToolCallPart]
    usage: Spent


@dataclass(slots=True)
class Wire(httpx2.AsyncBaseTransport):
    """What the library of a vendor sends its requests through."""

    network: Network
    say: Say
    model: str
    until: float
    """When the run must be over, by the clock of the loop."""
    body_bytes: int = 0
    failure: ModelFailed | None = None
    stop: Stop | None = None
    started_ns: int = 0
    _tries: int = field(default=0)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, again where that may help. Raises TransportError once it does not."""
        content = await request.aread()
        while True:
            self._tries += 1
            body = await self._allowed(content)
            self.started_ns = _now_ns()
            wait_s = _PAUSES_S[min(self._tries, len(_PAUSES_S)) - 1]
            try:
                answer = await self.network.send(
                    request.method,
                    str(request.url),
                    [(name, value) for name, value in request.headers.multi_items() if name != "content-length"],
                    body,
                    most_bytes=_MAX_ANSWER_BYTES,
                )
            except NotReached as error:
                self.failure = ModelFailed(
                    f"The provider cannot be reached: {error}", is_transient=not error.is_refused
                )
                response = None
            else:
                self.failure, response = _judged(answer, request)
                asked_ms = retry_after_ms(answer.headers.get("retry-after"), EpochMs(_now_ns() // _NS_PER_MS))
                wait_s = wait_s if asked_ms is None else asked_ms / 1000
            if self.failure is None and response is not None:
                return response
            failure = self.failure
            await self.say(Spent(self.model, self.started_ns, _now_ns(), error=str(failure)))
            is_over = asyncio.get_running_loop().time() + wait_s >= self.until
            if failure is None or not failure.is_transient or self._tries >= TRIES or is_over:
                if response is not None:
                    return response
                raise httpx2.ConnectError("not reached", request=request)
            await asyncio.sleep(wait_s)

    async def _allowed(self, content: bytes) -> bytes:
        """The body with the limit that the server sets. Raises TransportError when the run is to end."""
        self.body_bytes = len(content)
        said = await self.say(Ask(self.model, len(content)))
        if isinstance(said, Stop):
            self.stop = said
            raise httpx2.TransportError("stopped")
        body = json.loads(content)
        if isinstance(said, Allowed):
            for name in _LIMITS:
                if name in body:
                    body[name] = min(body[name], said.max_tokens)
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _now_ns() -> int:
    return time.time_ns()  # noqa: TID251 - spans of a process without the server's clock


def _judged(answer: Answer, request: httpx2.Request) -> tuple[ModelFailed | None, httpx2.Response | None]:
    """What is wrong with an answer, and the answer itself, if it can be unpacked."""
    try:
        response = answer.as_response(request)
    except httpx2.DecodingError:
        return ModelFailed("The provider's answer cannot be unpacked", is_transient=False), None
    if answer.status < _CLIENT_FAULTS:
        return None, response
    why = clean_text(response.content)[:_MAX_WORDS]
    words = f"The provider answered with status {answer.status}{': ' if why else ''}{why}"
    is_transient = answer.status == _TOO_MANY or answer.status >= _SERVER_FAULTS
    return ModelFailed(words, is_transient=is_transient), response


class Models:
    """The models of a run, asked one after the other while they fail for reasons that pass."""

    def __init__(self, job: Job, network: Network, say: Say) -> None:
        self._job = job
        self._network = network
        self._say = say
        self._until = asyncio.get_running_loop().time() + job.timeout_s
        self._parameters = ModelRequestParameters(
            function_tools=[
                ToolDefinition(name=each.name, description=each.description, parameters_json_schema=each.schema)
                for each in job.tools
            ]
        )
        self._n = 0

    def offer(self, tools: Sequence[ToolDefinition]) -> None:
        """Let the models know of more tools."""
        self._parameters = ModelRequestParameters(function_tools=[*self._parameters.function_tools, *tools])

    async def answer(self, messages: Sequence[ModelMessage]) -> Answered:
        """What a model says to this. Raises ModelFailed, Stopped."""
        while True:
            try:
                return await self._ask(self._job.models[self._n], messages)
            except ModelFailed as failure:
                # Whoever failed for now is not asked again in this run.
                if not failure.is_transient or self._n + 1 >= len(self._job.models):
                    raise
                self._n += 1

    async def _ask(self, name: str, messages: Sequence[ModelMessage]) -> Answered:
        wire = Wire(self._network, self._say, name, self._until)
        async with httpx2.AsyncClient(transport=wire, trust_env=False) as client:
            model = model_of(self._job.provider, name, client)
            settings = ModelSettings(max_tokens=self._job.max_output_tokens)
            try:
                response = await model.request(list(messages), settings, self._parameters)
            except Exception as error:
                if wire.stop is not None:
                    raise Stopped(wire.stop) from error
                if wire.failure is not None:
                    raise wire.failure from error
                await self._say(
                    Spent(
                        name,
                        wire.started_ns,
                        _now_ns(),
                        input_tokens=estimated_tokens(wire.body_bytes),
                        is_estimated=True,
                        error="unreadable answer",
                    )
                )
                raise ModelFailed(
                    f"The provider's answer cannot be read: {type(error).__name__}", is_transient=False
                ) from error
        return await self._booked(name, wire, response)

    async def _booked(self, name: str, wire: Wire, response: ModelResponse) -> Answered:
        text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
        calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
        usage = response.usage
        spent = Spent(
            name,
            wire.started_ns,
            _now_ns(),
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_tokens,
            finish_reason=response.finish_reason,
        )
        if not usage.input_tokens and not usage.output_tokens:
            said = text + "".join(part.args_as_json_str() for part in calls)
            spent = Spent(
                name,
                wire.started_ns,
                _now_ns(),
                estimated_tokens(wire.body_bytes),
                estimated_tokens(len(said.encode())),
                is_estimated=True,
                finish_reason=response.finish_reason,
            )
        await self._say(spent)
        return Answered(response, text, calls, spent)


def model_of(provider: Provider, name: str, client: httpx2.AsyncClient) -> Model[Any]:  # Any: a vendor's client
    """A model of a provider. Whatever fails is tried again by `Wire`, so the libraries are told not to."""
    patience = httpx2.Timeout(None)
    if provider.kind == "anthropic":
        if "anthropic" not in sys.modules:
            lean.put_off("anthropic")
        from anthropic import AsyncAnthropic  # noqa: PLC0415 - 40 MiB, for those who need it
        from pydantic_ai.models.anthropic import AnthropicModel  # noqa: PLC0415 - as above
        from pydantic_ai.providers.anthropic import AnthropicProvider  # noqa: PLC0415 - as above

        anthropic = AsyncAnthropic(
            api_key=provider.api_key or "none",
            base_url=provider.base_url or "https://api.anthropic.com",
            http_client=client,
            max_retries=0,
            timeout=patience,
        )
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=anthropic))
    from openai import AsyncOpenAI  # noqa: PLC0415 - beside the other
    from pydantic_ai.models.openai import OpenAIChatModel  # noqa: PLC0415 - as above
    from pydantic_ai.providers.openai import OpenAIProvider  # noqa: PLC0415 - as above

    base_url = provider.base_url or f"https://{_VENDOR_HOST}/v1"
    openai = AsyncOpenAI(
        api_key=provider.api_key or "none", base_url=base_url, http_client=client, max_retries=0, timeout=patience
    )
    # Only the vendor itself insists on the newer name of the limit; servers of one's own often know the older alone.
    is_vendor = urlsplit(base_url).hostname == _VENDOR_HOST
    profile = OpenAIModelProfile(openai_chat_supports_max_completion_tokens=is_vendor)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=openai), profile=None if is_vendor else profile)


_WARM: Final = {
    "openai": {
        "id": "warm",
        "object": "chat.completion",
        "created": 0,
        "model": "warm",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "warm"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    },
    "anthropic": {
        "id": "warm",
        "type": "message",
        "role": "assistant",
        "model": "warm",
        "content": [{"type": "text", "text": "warm"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}


async def warm_up(kind: str) -> None:
    """Import and build all that a first request of a provider of this kind would build."""
    from pydantic_ai.messages import ModelRequest, SystemPromptPart, UserPromptPart  # noqa: PLC0415 - for this alone

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=_WARM[kind]))
    tools = ModelRequestParameters(function_tools=[ToolDefinition(name="warm", description="warm")])
    question = ModelRequest(parts=[SystemPromptPart("warm"), UserPromptPart("warm")])
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        model = model_of(Provider("anthropic" if kind == "anthropic" else "openai", None, "warm"), "warm", client)
        with contextlib.suppress(Exception):
            await model.request([question], ModelSettings(max_tokens=16), tools)
