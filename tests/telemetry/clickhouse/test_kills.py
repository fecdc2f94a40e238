"""kill -9 wherever records are between the spool and ClickHouse: each answered record is told, and charged, once."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[3]
_PATIENCE_S = 60


def _node(directory: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.telemetry.clickhouse.node", str(directory), *words]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _tell(directory: Path) -> Any:  # Any: JSON
    output, _ = _node(directory, "tell").communicate(timeout=_PATIENCE_S)
    return json.loads(output.splitlines()[-1])


def _answered(output: str) -> list[int]:
    """The records that a node told of; it also logs."""
    lines = [line.split() for line in output.splitlines() if line.startswith("answered ")]
    return [int(number) for _answered, *numbers in lines for number in numbers]


@pytest.mark.parametrize("point", ["spool.before_insert", "spool.after_insert"])
def test_a_node_killed_while_it_sends_has_lost_and_doubled_nothing(tmp_path: Path, point: str) -> None:
    node = _node(tmp_path, "append", f"{point}=kill")
    output, _ = node.communicate(timeout=_PATIENCE_S)
    assert node.returncode == -signal.SIGKILL
    answered = _answered(output)

    told = _tell(tmp_path)

    assert answered
    # What was durable and not yet answered may be there too.
    assert set(answered) <= set(told["records"])
    assert told["used"] == len(told["records"])
    assert told["pending"] == 0


def test_a_node_killed_after_its_first_answer_has_kept_it(tmp_path: Path) -> None:
    node = _node(tmp_path, "append")
    assert node.stdout is not None
    first = node.stdout.readline()
    while first and not _answered(first):
        first = node.stdout.readline()
    node.kill()
    rest, _ = node.communicate(timeout=_PATIENCE_S)

    told = _tell(tmp_path)

    answered = set(_answered(first + rest))
    assert answered
    assert answered <= set(told["records"])
    assert told["used"] == len(told["records"])
