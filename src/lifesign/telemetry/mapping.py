"""From a span to its record: whatever convention it speaks, the same fields mean the same.

Spec "Telemetry", sections 4 and 5.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, get_args

from msgspec import Struct

from lifesign.clock import EpochMs
from lifesign.prices import TokenCounts
from lifesign.telemetry import rules
from lifesign.telemetry.hashes import canonical, hashed, operation_hash
from lifesign.telemetry.otlp.spans import CUT, MAX_NAME, Attributes, Span, SpanEvent, clean
from lifesign.telemetry.records import (
    BLOCKED,
    CLOCK_SKEW,
    EMPTY_RESULT,
    SOFT_ERROR,
    TRUNCATED,
    Body,
    CostSource,
    Kind,
    Origin,
    Record,
    SignalType,
)
from lifesign.telemetry.rules import SlowAfter
from lifesign.telemetry.sources import (
    CLAUDE_CODE,
    KIND_OF_NAME,
    KIND_OF_VALUE,
    KNOWN,
    MEMORY_SUFFIXES,
    VERCEL_AI,
    VERCEL_AI_LLM,
    Sources,
    convention_of,
    present,
)

_STATUS_OK, _STATUS_ERROR = 1, 2
_FIRST_FAILING_HTTP_STATUS: Final = 500
_FIRST_REFUSED_HTTP_STATUS: Final = 400
_MESSAGE_OF_RESULT: Final = 500
_LONGEST_SESSION_ID: Final = 256
_KEPT_OF_LONG_SESSION_ID: Final = 200
_HEX_OF_LONG_SESSION_ID: Final = 16
_NS_PER_MS: Final = 1_000_000
_is_known: Final = KNOWN.__contains__


class Pricing(Protocol):
    """What knows prices: `prices.Prices`."""

    def price(self, provider: str | None, model: str, tokens: TokenCounts, at: EpochMs) -> int | None:
        """10^-9 USD of a call; None when no price is known."""
        ...


def records_of(
    spans: Iterable[Span], received_at: EpochMs, *, slow_after: SlowAfter, prices: Pricing | None = None
) -> list[Record]:
    """The records of spans that arrived together, in their order."""
    limits_ns: dict[str, int] = {kind: slow_after.limit_ns(kind) for kind in get_args(Kind)}
    records: list[Record] = []
    place: _Place | None = None
    for span in spans:
        if place is None or place.origin.resource is not span.resource or place.origin.scope is not span.scope:
            place = _place_of(span)
        records.append(_record_of(span, place, received_at, limits_ns, prices))
    return records


class _Place(Struct, frozen=True, gc=False):
    """What the spans of one resource and scope have in common. The texts: what holds for a span that says nothing."""

    origin: Origin
    service: str | None
    version: str | None
    environment: str | None
    session: str | None


# Attributes that count when the resource has them.
_OF_RESOURCE: Final = frozenset(
    {
        "service.name",
        "service.version",
        "deployment.environment.name",
        "deployment.environment",
        "langfuse.environment",
    }
)


def _place_of(span: Span) -> _Place:
    attributes = {name: value for name, value in span.resource.attributes.items() if name in _OF_RESOURCE}
    sources = present(tuple(attributes))
    return _Place(
        Origin(span.resource, span.scope),
        _text(attributes, sources.service),
        _text(attributes, sources.version),
        _text(attributes, sources.environment),
        session_id_of(span.resource.attributes.get("session.id")),
    )


def _record_of(
    span: Span, place: _Place, received_at: EpochMs, limits_ns: Mapping[str, int], prices: Pricing | None
) -> Record:
    attributes, name = span.attributes, span.name
    sources = present(tuple(filter(_is_known, attributes)))
    flags = (TRUNCATED if span.is_cut else 0) | (CLOCK_SKEW if span.is_skewed else 0)

    # Who and what
    model = _text(attributes, sources.model)
    tool = _text(attributes, sources.tool)
    tokens = _tokens(attributes, sources)
    is_call = model is not None and tokens.total is not None
    kind = _kind(attributes, sources, name, has_tool=tool is not None, has_model=is_call)
    operation = _text(attributes, sources.route) or tool or name
    if kind == "tool" and tool is None:
        tool = _text(attributes, sources.entity)
    service = version = environment = None
    if sources.service or sources.version or sources.environment:
        service, version, environment = _said_by_span(attributes, place)
    service = service or place.service
    provider = _text(attributes, sources.provider)

    # What went in and what came out
    args_hash, result_hash, soft_message = _arguments_hash(attributes, sources, kind), None, None
    result, has_result = _result(attributes, sources, kind)
    if has_result:
        result_hash = hashed(canonical(result))
        if kind == "tool" and rules.is_error_result(result):
            flags |= SOFT_ERROR
            soft_message = result if isinstance(result, str) else canonical(result)
        if rules.is_empty_result(result):
            flags |= EMPTY_RESULT
    if sources.blocked and any(rules.is_true(attributes[key]) for key in sources.blocked):
        flags |= BLOCKED

    # Whether it failed, and how
    http_status = _code(attributes, sources.http_status)
    is_judged = sources.tool_failure and (kind == "tool" or name.startswith(CLAUDE_CODE))
    if is_judged and any(rules.says_it_failed(key, attributes[key]) for key in sources.tool_failure):
        flags |= SOFT_ERROR
    is_failing = (
        span.status_code == _STATUS_ERROR
        or flags & SOFT_ERROR != 0
        or (span.status_code != _STATUS_OK and _is_reported_failing(attributes, sources, http_status))
    )
    error_type = message = None
    exception = _last_exception(span.events) if span.events else _NO_ATTRIBUTES
    if is_failing:
        error_type = _error_type(attributes, sources, exception, http_status)
    if is_failing or span.status_message or exception or sources.message:
        message = span.status_message or _plain_text(exception.get("exception.message"))
        message = message or _first_plain(attributes, sources.message)
        if not message and soft_message is not None:
            message = soft_message.strip()[:_MESSAGE_OF_RESULT]
    duration_ns = max(0, span.end_ns - span.start_ns)

    # What it cost
    cost_source: CostSource | None = None
    if (cost_nano := _cost(attributes, sources)) is not None:
        cost_source = "reported"
    elif prices is not None and model is not None and tokens.is_known:
        cost_nano = prices.price(provider, model, tokens.counts, EpochMs(span.start_ns // _NS_PER_MS))
        cost_nano = None if cost_nano is None or cost_nano > rules.MOST_NANO_USD else cost_nano
        cost_source = None if cost_nano is None else "priced"

    own_session, aliases = _sessions(attributes, sources, place)
    return Record(
        span.trace_id,
        span.span_id,
        span.parent_id,
        received_at,
        span.start_ns,
        span.end_ns,
        kind,
        operation,
        operation_hash(kind, operation),
        "error" if is_failing else "ok" if span.status_code == _STATUS_OK else "unset",
        _signal_type(attributes, sources, kind, is_failing=is_failing, is_slow=duration_ns >= limits_ns[kind]),
        own_session,
        _text(attributes, sources.agent) or service,
        service,
        tool,
        model,
        environment or place.environment,
        version or place.version,
        error_type,
        args_hash,
        result_hash,
        rules.duration_bucket(duration_ns),
        _attempt(attributes, sources) if sources.attempt else None,
        _finish_reason(attributes, sources) if sources.finish_reason else None,
        flags,
        tokens.input,
        tokens.output,
        tokens.cache_read,
        tokens.cache_write,
        tokens.reasoning,
        tokens.total,
        cost_nano,
        body=Body(
            name,
            provider,
            message or None,
            cost_source,
            convention_of(name, attributes),
            aliases,
            span.kind,
            span.trace_state,
            span.flags,
            span.status_code,
            span.status_message,
            span.dropped_attributes,
            span.dropped_events,
            span.dropped_links,
            attributes,
            span.events,
            span.links,
        ),
        origin=place.origin,
    )


# Who and what --------------------------------------------------------------------------------------------------------
# Any, throughout: an attribute's value is JSON of whoever sent it.
_NO_ATTRIBUTES: Final[Attributes] = {}


def _text(attributes: Attributes, names: Sequence[str]) -> str | None:
    """The first of these attributes that says something, as text of a name's length."""
    for name in names:
        text = _name_of(attributes[name])
        if text is not None:
            return text
    return None


def _name_of(value: Any) -> str | None:
    if not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        value = str(value)
    text: str = value.strip()
    if not text:
        return None
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - len(CUT)] + CUT


def _kind(attributes: Attributes, sources: Sources, name: str, *, has_tool: bool, has_model: bool) -> Kind:
    for key in sources.kind:
        value = attributes[key]
        if not isinstance(value, str):
            continue
        value = value.strip().lower()
        kind = KIND_OF_VALUE[key].get(value)
        if kind is not None:
            return kind
        if key == "gen_ai.operation.name" and value.endswith(MEMORY_SUFFIXES):
            return "memory"
    kind = KIND_OF_NAME.get(name)
    if kind is not None:
        return kind
    if name.startswith(VERCEL_AI):
        return "llm" if name.endswith(VERCEL_AI_LLM) else "workflow"
    if has_tool:
        return "tool"
    if has_model:
        return "llm"
    return "http" if sources.http_method else "other"


def _said_by_span(attributes: Attributes, place: _Place) -> tuple[str | None, str | None, str | None]:
    """Service, version and environment where the span itself says one of them: it goes before its resource."""
    of_resource = {name: value for name, value in place.origin.resource.attributes.items() if name in _OF_RESOURCE}
    # An attribute of the resource stands where the same one of the span would.
    both = of_resource | {name: value for name, value in attributes.items() if _name_of(value) is not None}
    there = present(tuple(filter(_is_known, both)))
    return _text(both, there.service), _text(both, there.version), _text(both, there.environment)


# Tokens and costs ----------------------------------------------------------------------------------------------------
class _Tokens(Struct, frozen=True, gc=False):
    """All six of a record."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    total: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is known what went in or what came out."""
        return self.input is not None or self.output is not None

    @property
    def counts(self) -> TokenCounts:
        return TokenCounts(self.input or 0, self.output or 0, self.cache_read or 0, self.cache_write or 0)


_NO_TOKENS: Final = _Tokens()
_BARE_INPUT: Final = "input_tokens"
_BARE_CACHES: Final = frozenset({"cache_read_tokens", "cache_creation_tokens"})


def _tokens(attributes: Attributes, sources: Sources) -> _Tokens:
    if not sources.has_tokens:
        return _NO_TOKENS
    going_in, name_in = _count(attributes, sources.input_tokens)
    coming_out, _ = _count(attributes, sources.output_tokens)
    cache_read, name_read = _count(attributes, sources.cache_read_tokens)
    cache_write, name_written = _count(attributes, sources.cache_write_tokens)
    reasoning, _ = _count(attributes, sources.reasoning_tokens)
    if going_in is not None and name_in == _BARE_INPUT and not _BARE_CACHES.isdisjoint((name_read, name_written)):
        # Here, and only here, the input is told without what is cached.
        going_in += (cache_read or 0) + (cache_write or 0)
    if going_in is None and coming_out is None:
        total, _ = _count(attributes, sources.total_tokens)
    else:
        total = (going_in or 0) + (coming_out or 0)
    return _Tokens(going_in, coming_out, cache_read, cache_write, reasoning, total)


def _count(attributes: Attributes, names: Sequence[str]) -> tuple[int | None, str]:
    """The first of these attributes that is a number of tokens, and which."""
    for name in names:
        count = rules.tokens_of(attributes[name])
        if count is not None:
            return count, name
    return None, ""


def _cost(attributes: Attributes, sources: Sources) -> int | None:
    """What the span says it cost, in 10^-9 USD."""
    for name in sources.cost:
        value = attributes[name]
        if name == "langfuse.observation.cost_details":
            details = _parsed(value) if isinstance(value, str) else value
            value = details.get("total") if isinstance(details, dict) else None
        cost = rules.nano_usd_of(value)
        if cost is not None:
            return cost
    return None


# In and out ----------------------------------------------------------------------------------------------------------
def _arguments_hash(attributes: Attributes, sources: Sources, kind: Kind) -> int | None:
    """The number of what a tool was called with; None when that is not told."""
    for name in (*sources.arguments, *sources.tool_input) if kind == "tool" else sources.arguments:
        value = attributes[name]
        if value is not None and not (isinstance(value, str) and not value.strip()):
            return hashed(canonical(value))
    return None


def _result(attributes: Attributes, sources: Sources, kind: Kind) -> tuple[Any, bool]:
    """What a tool gave back, and whether that is told."""
    for name in (*sources.result, *sources.tool_output) if kind == "tool" else sources.result:
        return attributes[name], True
    return None, False


def _finish_reason(attributes: Attributes, sources: Sources) -> str | None:
    for name in sources.finish_reason:
        value = attributes[name]
        if isinstance(value, str) and value.lstrip().startswith("["):
            parsed = _parsed(value)
            value = parsed if isinstance(parsed, list) else value
        if isinstance(value, list):
            value = value[0] if value else None
        # What was JSON within a text may have escapes that were no characters there.
        reason = _name_of(clean(value) if isinstance(value, str) else value)
        if reason is not None:
            return reason
    return None


def _attempt(attributes: Attributes, sources: Sources) -> int | None:
    for name in sources.attempt:
        count = rules.count_of(attributes[name])
        if count is not None:
            return min(count + (name == "http.request.resend_count"), rules.LARGEST_ATTEMPT)
    return None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# Whether it failed ---------------------------------------------------------------------------------------------------
def _is_reported_failing(attributes: Attributes, sources: Sources, http_status: int | None) -> bool:
    """Rule 2: what counts as a failure unless the status is explicitly OK."""
    if http_status is not None and http_status >= _FIRST_FAILING_HTTP_STATUS:
        return True
    return any(attributes[name] == "ERROR" for name in sources.level)


def _last_exception(events: Sequence[SpanEvent]) -> Attributes:
    return next((event.attributes for event in reversed(events) if event.name == "exception"), _NO_ATTRIBUTES)


def _error_type(attributes: Attributes, sources: Sources, exception: Attributes, http_status: int | None) -> str:
    said = (
        _text(attributes, sources.error_type)
        or _name_of(exception.get("exception.type"))
        or _text(attributes, sources.exception_type)
    )
    if said is not None:
        return said
    if http_status is not None and http_status >= _FIRST_REFUSED_HTTP_STATUS:
        return f"http.{http_status}"
    grpc_status = _code(attributes, sources.grpc_status)
    return f"grpc.{grpc_status}" if grpc_status else "_OTHER"


def _code(attributes: Attributes, names: Sequence[str]) -> int | None:
    return next((code for name in names if (code := rules.code_of(attributes[name])) is not None), None)


def _plain_text(value: Any) -> str | None:
    """A text that says something."""
    return value if isinstance(value, str) and value.strip() else None


def _first_plain(attributes: Attributes, names: Sequence[str]) -> str | None:
    return next((text for name in names if (text := _plain_text(attributes[name]))), None)


def _signal_type(
    attributes: Attributes, sources: Sources, kind: Kind, *, is_failing: bool, is_slow: bool
) -> SignalType:
    if is_failing:
        return "tool_call_failed" if kind == "tool" else "error"
    if sources.feedback or sources.feedback_score:
        is_negative = any(rules.is_negative_feedback(attributes[name]) for name in sources.feedback)
        if is_negative or any(rules.is_negative_score(attributes[name]) for name in sources.feedback_score):
            return "user_signal"
    return "slow_operation" if is_slow else "info"


# Sessions ------------------------------------------------------------------------------------------------------------
def _sessions(attributes: Attributes, sources: Sources, place: _Place) -> tuple[str | None, tuple[str, ...]]:
    """The span's own session id, and every other one that it has."""
    if not sources.session:
        return place.session, ()
    if len(sources.session) == 1 and place.session is None:
        return session_id_of(attributes[sources.session[0]]), ()
    found = dict.fromkeys(session_id_of(attributes[name]) for name in sources.session)
    found[place.session] = None
    found.pop(None, None)
    own, *aliases = found or (None,)
    return own, tuple(alias for alias in aliases if alias is not None)


def session_id_of(value: Any) -> str | None:
    """A session id as all of them are written; None when it says nothing. What is written so stays as it is."""
    if not isinstance(value, str):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        value = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    text: str = value.strip()
    if not text.isprintable():
        text = "".join(each for each in text if unicodedata.category(each) != "Cc").strip()
    if len(text) > _LONGEST_SESSION_ID:
        digest = hashlib.sha256(text.encode()).hexdigest()[:_HEX_OF_LONG_SESSION_ID]
        text = f"{text[:_KEPT_OF_LONG_SESSION_ID]}~{digest}"
    return text or None
