"""Programs that do runs, and what the tests of bots deliver to."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers.fixtures import ledger, ledger_process

__all__ = ["ledger", "ledger_process"]

Program = Callable[..., str]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Writes a Python program into the operator's file, under a name; `job` is what it is told."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True, mode=0o700)

    def write(name: str, source: str, **more: Any) -> str:  # Any: values of the file
        script = tmp_path / f"{name}.py"
        script.write_text(f"import json, os, sys, time\njob = json.load(sys.stdin)\n{source}\n")
        lines = [f"[commands.{name}]", f"argv = {json.dumps([sys.executable, str(script)])}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in more.items()]
        with (data / "bots.toml").open("a") as file:
            file.write("\n".join([*lines, ""]))
        return name

    return write
