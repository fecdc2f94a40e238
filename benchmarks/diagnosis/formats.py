"""Labelled runs of agents as others published them, read as steps.

Written from the published shapes: tau-bench (trajectories of messages with a reward), AgentRx (the same with numbered
messages, and failures by step), Who&When (a history with the step and the agent that went wrong), mini-swe-agent
(messages with commands of a shell). What a run lacks is left out; a file that is none of its format is named.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.diagnosis.runs import Json, Label, Run, Step, request_of

_COMMAND: Final = re.compile(r"```(?:bash|sh|mswea_bash_command)\s*\n(.*?)\n?```", re.DOTALL)
_AGENT: Final = "agent"


class NotThisFormat(ValueError):
    """A file is none of the format that was named."""


def runs_of(format_name: str, path: Path) -> Iterator[Run]:
    """The runs below a path, in the order of file names. Raises NotThisFormat."""
    read = FORMATS[format_name]
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*.json") if each.is_file())
    if not files:
        raise NotThisFormat(f"{path}: there is no JSON file")
    labels = _failures_in(files) if format_name == "agentrx" else {}
    for file in files:
        document = _json(file)
        if _is_labels(document):
            continue
        try:
            yield from read(file, document, labels)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise NotThisFormat(f"{file}: is no file of {format_name} ({type(error).__name__}: {error})") from error


def _json(file: Path) -> Any:  # Any: JSON of others
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeError, ValueError) as error:
        raise NotThisFormat(f"{file}: is no JSON ({error})") from error


# Messages with calls of tools ---------------------------------------------------------------------------------------
def _tau(file: Path, document: Any, _labels: Mapping[str, tuple[int, ...]]) -> Iterator[Run]:
    for number, told in enumerate(document if isinstance(document, list) else [document]):
        name = f"tau/{file.stem}/{told['task_id']}/{told.get('trial', number)}"
        steps = list(_steps(told["traj"], list(range(len(told["traj"])))))
        yield Run(request_of(name, _AGENT, steps), Label(name, float(told["reward"]) >= 1))


def _agentrx(file: Path, document: Any, labels: Mapping[str, tuple[int, ...]]) -> Iterator[Run]:
    messages = document["traj"]
    indexes = [int(message.get("index", place)) for place, message in enumerate(messages)]
    name = f"agentrx/{file.stem}"
    wrong = labels.get(str(document.get("trajectory_id", file.stem)), labels.get(file.stem, ()))
    wrong += tuple(int(each["step_number"]) for each in document.get("failures", ()))
    reward = document.get("reward")
    passed = not wrong if reward is None else float(reward) >= 1
    steps = list(_steps(messages, indexes))
    yield Run(request_of(name, _AGENT, steps), Label(name, passed, _placed(wrong, messages, indexes)))


def _steps(messages: list[Json], indexes: list[int]) -> Iterator[Step]:
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        yield Step(indexes[place], _AGENT)
        for call in message.get("tool_calls") or ():
            result = _result_of(messages, place, call["id"])
            yield Step(
                indexes[place],
                _AGENT,
                tool=call["function"]["name"],
                arguments=call["function"].get("arguments"),
                result=None if result is None else _text(result.get("content")),
            )


def _result_of(messages: list[Json], place: int, call_id: str) -> Json | None:
    """The next result of this call. The next: models give two calls of one run the same id."""
    return next((each for each in messages[place + 1 :] if each.get("tool_call_id") == call_id), None)


def _placed(wrong: tuple[int, ...], messages: list[Json], indexes: list[int]) -> tuple[int, ...]:
    """Where a label names the result of a tool, the step is that of the message that called it."""
    caller: dict[str, int] = {}
    of_result: dict[int, int] = {}
    for message, index in zip(messages, indexes, strict=True):
        caller |= {call["id"]: index for call in message.get("tool_calls") or ()}
        if message.get("tool_call_id") in caller:
            of_result[index] = caller[message["tool_call_id"]]
    return tuple(dict.fromkeys(of_result.get(each, each) for each in wrong))


def _is_labels(document: Any) -> bool:
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(each, dict) and "failures" in each and "traj" not in each for each in document)
    )


def _failures_in(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """The steps that went wrong by trajectory, of the files that hold labels."""
    return {
        str(each["trajectory_id"]): tuple(int(failure["step_number"]) for failure in each["failures"])
        for file in files
        if _is_labels(document := _json(file))
        for each in document
    }


# A history of several agents ----------------------------------------------------------------------------------------
def _who_and_when(file: Path, document: Any, _labels: Mapping[str, tuple[int, ...]]) -> Iterator[Run]:
    name = f"who-and-when/{file.parent.name}/{file.stem}"
    steps = [
        Step(place, str(message.get("name") or message["role"])) for place, message in enumerate(document["history"])
    ]
    passed = bool(document.get("is_correct", document.get("is_corrected", False)))
    wrong = (int(document["mistake_step"]),) if str(document.get("mistake_step", "")).isdigit() else ()
    label = Label(name, passed, wrong, document.get("mistake_agent"))
    yield Run(request_of(name, steps[0].agent if steps else _AGENT, steps), label)


# Commands of a shell ------------------------------------------------------------------------------------------------
def _mini_swe(file: Path, document: Any, _labels: Mapping[str, tuple[int, ...]]) -> Iterator[Run]:
    if not str(document["trajectory_format"]).startswith("mini-swe-agent"):
        raise NotThisFormat(f"{file}: is no file of mini-swe-agent")
    name = f"mini-swe/{document.get('instance_id', file.name.removesuffix('.json').removesuffix('.traj'))}"
    messages = document["messages"]
    steps: list[Step] = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        steps.append(Step(place, _AGENT))
        answer = _text(messages[place + 1].get("content")) if place + 1 < len(messages) else None
        commands = _COMMAND.findall(_text(message.get("content")) or "")
        calls = message.get("tool_calls") or ()
        for call in calls:
            result = _result_of(messages, place, call["id"]) if "id" in call else None
            told = answer if result is None else _text(result.get("content"))
            function = call["function"]
            steps.append(Step(place, _AGENT, tool=function["name"], arguments=function.get("arguments"), result=told))
        for command in () if calls else commands:
            arguments = json.dumps({"command": command})
            steps.append(Step(place, _AGENT, tool="bash", arguments=arguments, result=answer))
    resolved = document.get("info", {}).get("scores", {}).get("resolved")
    yield Run(request_of(name, _AGENT, steps), Label(name, None if resolved is None else bool(resolved)))


def _text(content: Any) -> str | None:  # Any: a text, or parts of one
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return None if content is None else str(content)


_Read = Callable[[Path, Any, Mapping[str, tuple[int, ...]]], Iterator[Run]]
FORMATS: Final[Mapping[str, _Read]] = {
    "tau-bench": _tau,
    "agentrx": _agentrx,
    "who-and-when": _who_and_when,
    "mini-swe": _mini_swe,
}
