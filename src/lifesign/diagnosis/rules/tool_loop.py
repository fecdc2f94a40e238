"""R5: a tool is called again and again with equal arguments, and tells nothing new."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from lifesign.diagnosis.findings import Hit, Rule, View, named
from lifesign.diagnosis.preparation import Placed

IN_A_ROW: Final = 3
IN_ALL: Final = 5
CYCLES: Final = 3
CYCLE_LENGTHS: Final = (2, 3, 4)

Call = tuple[str | None, int]
_Step = tuple[Call | None, Placed]


def _hits_in(steps: Sequence[Placed], _view: View) -> Iterator[Hit]:
    # A call without arguments is none to compare, yet it stands between others.
    calls: list[_Step] = [(_call(placed), placed) for placed in steps if placed.record.kind == "tool"]
    if len(calls) < IN_A_ROW:
        return
    for loop in (*_rows(calls), *_often(calls), *_cycles(calls)):
        if not _is_polling(loop):
            yield from (Hit((named(placed.record.tool),), placed) for placed in loop)


def _call(placed: Placed) -> Call | None:
    args_hash = placed.record.args_hash
    return None if args_hash is None else (placed.record.tool, args_hash)


def _is_polling(loop: Sequence[Placed]) -> bool:
    """Whether every call of it told something else."""
    results = [placed.record.result_hash for placed in loop]
    return None not in results and len(set(results)) == len(results)


def _rows(calls: Sequence[_Step]) -> Iterator[list[Placed]]:
    for call, row in groupby(calls, key=lambda step: step[0]):
        placed = [step[1] for step in row]
        if call is not None and len(placed) >= IN_A_ROW:
            yield placed


def _often(calls: Sequence[_Step]) -> Iterator[list[Placed]]:
    if len(calls) < IN_ALL:
        return
    by_call: dict[Call, list[Placed]] = defaultdict(list)
    for call, placed in calls:
        if call is not None:
            by_call[call].append(placed)
    yield from (placed for placed in by_call.values() if len(placed) >= IN_ALL)


def _cycles(calls: Sequence[_Step]) -> Iterator[list[Placed]]:
    for length in CYCLE_LENGTHS:
        if len(calls) < CYCLES * length:
            return
        start = 0
        for at in range(length, len(calls) + 1):
            if at < len(calls) and calls[at][0] is not None and calls[at][0] == calls[at - length][0]:
                continue
            cycle = {call for call, _ in calls[start : start + length]} - {None}
            if at - start >= CYCLES * length and len(cycle) == length:
                yield [placed for _, placed in calls[start:at]]
            start = at - length + 1


RULE: Final = Rule(
    5,
    "tool_loop",
    "Stop {subject} from being called again with equal arguments: "
    "return a clear result or end the loop.{discriminator}",
    own=frozenset({"tool"}),
    hits_in=_hits_in,
)
