"""Healthy traffic as agents make it: an hour, and the hour before, in which nothing is wrong that somebody should mend.

What the rules say of it is what they say too much, or what their letter asks for: `python -m benchmarks.diagnosis
traffic` prints it by kind of traffic.
"""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from benchmarks.diagnosis.runs import Json, Spans, Value

_SEED: Final = 20_261
_SESSIONS: Final = 40

Traffic = tuple[list[Json], list[Json]]
"""Requests of the window, and of the window before."""


class _Session:
    """One conversation of an agent, in one trace."""

    def __init__(self, name: str, chance: random.Random, *, version: str = "1.0.0", agent: str = "clerk") -> None:
        self.spans = Spans(name)
        self.chance = chance
        self._more: dict[str, Value] = {"service.version": version, "gen_ai.agent.name": agent}
        self._tokens = 900
        self.root = self._add(f"invoke_agent {agent}", {"gen_ai.operation.name": "invoke_agent"}, parent="", seconds=9)

    def chat(self, *, seconds: float | None = None, grows_by: int = 150, reason: str = "stop") -> None:
        """A call of the model, whose context grows."""
        self._tokens += grows_by
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "model-a",
            "gen_ai.usage.input_tokens": self._tokens,
            "gen_ai.usage.output_tokens": self.chance.randint(20, 400),
            "gen_ai.usage.cost": round(self._tokens * 3e-6, 6),
            "llm.finish_reason": reason,
        }
        self._add("chat model-a", attributes, seconds=seconds or self.chance.lognormvariate(0.3, 0.5))

    def tool(
        self,
        tool: str,
        arguments: Json,
        result: str | None = "found",
        *,
        failing: str | None = None,
        seconds: float | None = None,
        attempt: int | None = None,
        parent: str | None = None,
    ) -> None:
        """A call of a tool; what fails has no result."""
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool,
            "gen_ai.tool.call.arguments": json.dumps(arguments),
        }
        if failing is None and result is not None:
            attributes["gen_ai.tool.call.result"] = result
        if attempt is not None:
            attributes["attempt"] = attempt
        took = seconds or self.chance.lognormvariate(-1.2, 0.6)
        self._add(f"execute_tool {tool}", attributes, parent=parent, failing=failing, seconds=took)

    def agent(self, agent: str) -> str:
        """Another agent takes over for a step."""
        attributes: dict[str, Value] = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent}
        return self._add(f"invoke_agent {agent}", attributes, seconds=3)

    def _add(
        self,
        name: str,
        attributes: dict[str, Value],
        *,
        parent: str | None = None,
        failing: str | None = None,
        seconds: float = 1,
    ) -> str:
        place = self.root if parent is None else parent
        return self.spans.add(name, self._more | attributes, parent=place, failing=failing, seconds=seconds)


Talk = Callable[[_Session, int], None]
"""What is said in a session, and which it is."""


def _usual(session: _Session, number: int) -> None:
    for step in range(session.chance.randint(2, 6)):
        session.chat()
        session.tool(session.chance.choice(["search", "fetch", "book"]), {"q": f"{number} {step}"}, f"found {step}")
    session.chat()


def _window(name: str, talk: Talk, sessions: int = _SESSIONS, **said: str) -> list[Json]:
    chance = random.Random(f"{_SEED} {name}")
    made = []
    for number in range(sessions):
        session = _Session(f"{name}-{number:03}", chance, **said)
        talk(session, number)
        made.append(session.spans.request())
    return made


def _same(name: str, talk: Talk, sessions: int = _SESSIONS) -> Traffic:
    """Traffic that was the same in the window before."""
    return _window(f"{name}-now", talk, sessions), _window(f"{name}-before", talk, sessions)


# Kinds of traffic ---------------------------------------------------------------------------------------------------
def _steady() -> Traffic:
    return _same("steady", _usual)


def _retries() -> Traffic:
    """Every tenth session has a call that fails once and succeeds when it is repeated."""

    def talk(session: _Session, number: int) -> None:
        _usual(session, number)
        if number % 10 == 0:
            for failing in ("Timeout", None):
                session.tool("search", {"q": f"again {number}"}, failing=failing)
            session.chat()
            session.chat()

    return _same("retries", talk)


def _third_attempts() -> Traffic:
    """A call in two hundred takes three attempts, which the client numbers."""

    def talk(session: _Session, number: int) -> None:
        _usual(session, number)
        if number == 0:
            for attempt, failing in enumerate(("Timeout", "Timeout", None), 1):
                session.tool("search", {"q": "slow"}, failing=failing, attempt=attempt)
            session.chat()

    return _same("third-attempts", talk)


def _parallel() -> Traffic:
    """Three agents that work side by side each read the same page."""

    def talk(session: _Session, number: int) -> None:
        for name in ("north", "south", "west"):
            session.tool("read_policy", {"page": number}, "the policy", parent=session.agent(name))
        session.chat()

    return _same("parallel", talk)


def _long_sessions() -> Traffic:
    """Sessions of sixty calls, whose context grows to some 10,000 tokens and is compacted twice."""

    def talk(session: _Session, number: int) -> None:
        for step in range(60):
            session.chat(grows_by=-8_000 if step in {20, 40} else 450)
            session.tool("edit", {"file": f"{number}/{step}"}, f"line {step} changed")

    return _same("long-sessions", talk, 10)


def _coding() -> Traffic:
    """An agent that runs the same tests after every edit; what they say differs while there is something to mend."""

    def talk(session: _Session, number: int) -> None:
        for step in range(6):
            session.chat(grows_by=500)
            session.tool("edit", {"file": f"{number}/{step}"}, f"line {step} changed")
            session.tool("run_tests", {"path": "tests"}, f"{6 - step} failed")
        session.chat()

    return _same("coding", talk, 20)


def _warm_up() -> Traffic:
    """The first calls after a start take ten times as long: three in a hundred."""

    def talk(session: _Session, number: int) -> None:
        for step in range(5):
            session.tool("search", {"q": f"{number} {step}"}, f"found {step}", seconds=4 if number == 0 else None)
            session.chat()

    return _window("warm-up-now", talk), _window("warm-up-before", _usual_five)


def _usual_five(session: _Session, number: int) -> None:
    for step in range(5):
        session.tool("search", {"q": f"{number} {step}"}, f"found {step}")
        session.chat()


def _low_traffic() -> Traffic:
    """Three sessions, of which one had a call that failed and was repeated; one session before."""

    def talk(session: _Session, number: int) -> None:
        _usual(session, number)
        if number == 1:
            for failing in ("Timeout", None):
                session.tool("fetch", {"q": "again"}, failing=failing)
            session.chat()

    return _window("low-traffic-now", talk, 3), _window("low-traffic-before", _usual, 1)


def _deployment() -> Traffic:
    """Half of the window is served by the next version, which does as the one before."""
    name = "deployment"
    old = _window(f"{name}-now-old", _usual, _SESSIONS // 2, version="1.0.0")
    new = _window(f"{name}-now-new", _usual, _SESSIONS // 2, version="1.1.0")
    return old + new, _window(f"{name}-before", _usual)


def _morning() -> Traffic:
    """Eight times as many sessions as in the hour before."""
    return _window("morning-now", _usual, 8 * 25), _window("morning-before", _usual, 25)


def _evening() -> Traffic:
    """An eighth of the sessions of the hour before."""
    return _window("evening-now", _usual, 25), _window("evening-before", _usual, 8 * 25)


def _polling() -> Traffic:
    """Jobs that are asked how far they are until they are done; each answer differs."""

    def talk(session: _Session, number: int) -> None:
        session.tool("start_job", {"n": number}, f"job {number}")
        for step in range(1, 7):
            session.tool("job_status", {"job": number}, f"{17 * step} %")
        session.chat()

    return _same("polling", talk, 20)


def _refined_searches() -> Traffic:
    """A search that finds nothing is asked once more in other words, and finds something."""

    def talk(session: _Session, number: int) -> None:
        for step, result in enumerate(("[]", "found")):
            session.tool("search", {"q": f"{number} {step}"}, result)
            session.chat()
        session.tool("fetch", {"q": number}, "a page")

    return _same("refined-searches", talk)


def _other_tools() -> Traffic:
    """Now and then a tool fails, and the agent gets there by another one."""

    def talk(session: _Session, number: int) -> None:
        _usual(session, number)
        if number % 20 == 0:
            session.tool("quick_search", {"q": number}, failing="Unavailable")
            session.chat()
            session.tool("search", {"q": number}, "found")
            session.chat()

    return _same("other-tools", talk)


def _many_operations() -> Traffic:
    """Forty operations with sixty calls each, whose times and failures are drawn alike in both windows."""

    def talk(session: _Session, _number: int) -> None:
        for operation in range(40):
            failing = "Timeout" if session.chance.random() < 0.05 else None
            name = f"op-{chr(97 + operation // 26)}{chr(97 + operation % 26)}"
            session.tool(name, {"q": session.chance.random()}, failing=failing)

    return _same("many-operations", talk, 60)


KINDS: Final[Mapping[str, Callable[[], Traffic]]] = {
    "steady": _steady,
    "retries": _retries,
    "third-attempts": _third_attempts,
    "parallel": _parallel,
    "long-sessions": _long_sessions,
    "coding": _coding,
    "warm-up": _warm_up,
    "low-traffic": _low_traffic,
    "deployment": _deployment,
    "morning": _morning,
    "evening": _evening,
    "polling": _polling,
    "refined-searches": _refined_searches,
    "other-tools": _other_tools,
    "many-operations": _many_operations,
}


def said_of(diagnose: Callable[[list[Json], list[Json]], Json], kinds: Iterable[str] = KINDS) -> Iterator[Json]:
    """What the rules say of each kind: how bad the worst issue of each signal is, and the patterns within issues."""
    for kind in kinds:
        packet = diagnose(*KINDS[kind]())
        # The worst come first.
        worst = {each["signal_type"]: each["severity"] for each in reversed(packet["issues"])}
        patterns = sorted({pattern for each in packet["issues"] for pattern in each["patterns"]})
        yield {"traffic": kind, "records": packet["telemetry_read"], "worst": worst, "patterns": patterns}
