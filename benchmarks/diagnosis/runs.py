"""One run of an agent as OTLP: the same run, the same bytes. Times are made up, a second a step."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

# Any: JSON.
Json = dict[str, Any]
Value = str | int | float | bool

RUNS, LABELS = "runs.jsonl", "labels.jsonl"
START_NS: Final = 1_767_225_600_000_000_000
STEP_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """A message of the agent, or the call of a tool that it asked for. index: of the message in what was published."""

    index: int
    agent: str
    tool: str | None = None
    arguments: str | None = None
    result: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """What people said of a run; never sent. passed: None where nobody said.

    steps: indexes of the steps that went wrong. agent: whose fault it was. faults: the rules that something was planted
    for. silent: rules that must not fire, however near it is. of: it belongs to the window before, of that run.
    """

    run: str
    passed: bool | None
    steps: tuple[int, ...] = ()
    agent: str | None = None
    faults: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A request with all spans of a run, and its label."""

    request: Json
    label: Label


def request_of(name: str, agent: str, steps: Iterable[Step]) -> Json:
    """A run as one request: the agent as root, a `chat` for each message, an `execute_tool` for each call."""
    maker = Spans(name)
    steps = list(steps)
    root = maker.add(
        f"invoke_agent {agent}",
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent},
        seconds=len(steps) + 1,
    )
    for step in steps:
        attributes: dict[str, Value] = {"gen_ai.agent.name": step.agent}
        if step.tool is None:
            name_of_span = "chat"
            attributes["gen_ai.operation.name"] = "chat"
            if step.model is not None:
                attributes["gen_ai.request.model"] = step.model
        else:
            name_of_span = f"execute_tool {step.tool}"
            attributes |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": step.tool}
            if step.arguments is not None:
                attributes["gen_ai.tool.call.arguments"] = step.arguments
            if step.result is not None:
                attributes["gen_ai.tool.call.result"] = step.result
        maker.add(name_of_span, attributes, parent=root, index=step.index)
    return maker.request()


@dataclass(slots=True)
class Spans:
    """The spans of one run, in the order in which they are added. first_trace: where the numbers of traces begin."""

    run: str
    spans: list[Json] = field(default_factory=list)
    first_trace: int = 0

    def add(
        self,
        name: str,
        attributes: dict[str, Value],
        *,
        parent: str = "",
        index: int = 0,
        seconds: float = 0.5,
        failing: str | None = None,
        trace: int = 0,
    ) -> str:
        """Add a span; its id. index: of the step that it shows. failing: type of its error. trace: which of several."""
        place = len(self.spans)
        start_ns = START_NS + place * STEP_NS
        span_id = f"{_digest(self.run)[:8]}{index & 0xFFFF:04x}{place + 1 & 0xFFFF:04x}"
        if failing is not None:
            attributes = attributes | {"error.type": failing}
        span: Json = {
            "traceId": _digest(f"{self.run} {self.first_trace + trace}")[:32],
            "spanId": span_id,
            "name": name,
            "kind": 1,
            "startTimeUnixNano": str(start_ns),
            "endTimeUnixNano": str(start_ns + round(seconds * 1e9)),
            "attributes": [_attribute(key, value) for key, value in attributes.items()],
        }
        if parent:
            span["parentSpanId"] = parent
        if failing is not None:
            span["status"] = {"code": 2, "message": f"{failing} in step {index}"}
        self.spans.append(span)
        return span_id

    def request(self) -> Json:
        """All of them, as an exporter sends them."""
        resource = {"attributes": [_attribute("service.name", "evaluation"), _attribute("session.id", self.run)]}
        scope = {"name": "benchmarks.diagnosis", "version": "1"}
        return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": self.spans}]}]}


def step_of(record_id: str) -> int:
    """The index of the step that a record of such a run shows."""
    return int(record_id[-8:-4], 16)


def write(runs: Iterable[Run], directory: Path) -> int:
    """Write requests and labels, a line each; how many."""
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        (directory / RUNS).open("w", encoding="utf-8") as requests,
        (directory / LABELS).open("w", encoding="utf-8") as labels,
    ):
        for run in runs:
            requests.write(_line(run.request))
            labels.write(_line(asdict(run.label)))
            count += 1
    return count


def read(directory: Path) -> Iterator[Run]:
    """What `write` wrote. Raises ValueError, naming file and line."""
    with (directory / RUNS).open(encoding="utf-8") as requests, (directory / LABELS).open(encoding="utf-8") as labels:
        for number, (request, label) in enumerate(zip_longest(requests, labels), 1):
            if request is None or label is None:
                lacking = RUNS if request is None else LABELS
                raise ValueError(f"{directory / lacking}: has no line {number}, and the other file has")
            try:
                told = json.loads(request)
            except ValueError as error:
                raise ValueError(f"{directory / RUNS}, line {number}: is no JSON ({error})") from error
            try:
                yield Run(told, _label(json.loads(label)))
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{directory / LABELS}, line {number}: is no label ({error})") from error


def _label(told: Json) -> Label:
    """Raises ValueError, TypeError, KeyError."""
    if not isinstance(told["run"], str) or told["passed"] not in (True, False, None):
        raise ValueError("run is a text, and passed is true, false or null")
    lists: Json = {name: tuple(told[name]) for name in ("steps", "faults", "silent") if name in told}
    return Label(**(told | lists))


def _line(body: Json) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")) + "\n"


def _attribute(key: str, value: Value) -> Json:
    match value:
        case bool():
            return {"key": key, "value": {"boolValue": value}}
        case int():
            return {"key": key, "value": {"intValue": str(value)}}
        case float():
            return {"key": key, "value": {"doubleValue": value}}
        case str():
            return {"key": key, "value": {"stringValue": value}}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
