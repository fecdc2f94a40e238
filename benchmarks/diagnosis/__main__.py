"""`python -m benchmarks.diagnosis`: plant faults, convert labelled runs of others, and score the diagnosis on either.

`traffic` tells what the rules say of healthy traffic.

Gates, told in the output: precision of `tool_call_failed` with at least 3 failures >= .85 and of `tool_loop` >= .80, at
most 10 false alarms in 100 healthy runs, and reruns that are identical.
"""

import argparse
import json
import sys
from pathlib import Path

from benchmarks.diagnosis import runs, scoring, synthetic, traffic
from benchmarks.diagnosis.diagnosing import Server, in_process
from benchmarks.diagnosis.formats import FORMATS, NotThisFormat, runs_of
from benchmarks.diagnosis.runs import Json

_GATES = {"tool_call_failed_3": 0.85, "tool_loop_or_pattern": 0.80}
_MOST_ALARMS = 10


def main() -> int:
    """Do one of them; 0 when it worked, whatever the scores are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnosis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    plant = commands.add_parser("synthetic", help="write the set of planted faults and healthy runs")
    plant.add_argument("out", type=Path, metavar="OUT_DIR")
    convert = commands.add_parser("convert", help="turn labelled runs of others into OTLP and labels")
    convert.add_argument("--format", required=True, choices=sorted(FORMATS))
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("out", type=Path, metavar="OUT_DIR")
    score = commands.add_parser("score", help="diagnose each run alone and all together, and print scores as JSON")
    score.add_argument(
        "directories", type=Path, nargs="*", metavar="OUT_DIR", help="what the others wrote; none: planted"
    )
    score.add_argument("--url", help="let this server diagnose, instead of the rules in this process")
    commands.add_parser("traffic", help="print what the rules say of healthy traffic, by its kind, as JSON")
    asked = parser.parse_args()
    try:
        match asked.command:
            case "synthetic":
                print(f"{runs.write(synthetic.runs(), asked.out)} runs")
            case "convert":
                print(f"{runs.write(runs_of(asked.format, asked.source), asked.out)} runs")
            case "traffic":
                print(json.dumps(list(traffic.said_of(in_process)), indent=2))
            case _:
                print(json.dumps(_scores(asked.directories, asked.url), indent=2))
    except (NotThisFormat, ValueError, OSError) as error:
        print(f"benchmarks.diagnosis: {error}", file=sys.stderr)
        return 1
    return 0


def _scores(directories: list[Path], url: str | None) -> Json:
    given = [run for each in directories for run in runs.read(each)] if directories else list(synthetic.runs())
    diagnose = in_process if url is None else Server(url).diagnose
    scores = scoring.score(given, diagnose, on_a_clock=url is not None)
    return scores | {"gates": _gates(scores)}


def _gates(scores: Json) -> Json:
    """Whether each is held; null where nothing fired, so that nothing can be said."""
    held: Json = {
        name: None if scores[name]["precision"] is None else scores[name]["precision"] >= least
        for name, least in _GATES.items()
    }
    alarms = scores["false_alarms_per_100_healthy"]
    held["false_alarms"] = None if alarms is None else alarms <= _MOST_ALARMS
    held["reruns_identical"] = scores["reruns_identical"]
    return held


if __name__ == "__main__":
    sys.exit(main())
