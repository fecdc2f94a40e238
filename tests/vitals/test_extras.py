"""Without the extras: a message that names what to install, and nothing that breaks before it is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def run_without(modules: list[str], program: str) -> str:
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in modules)
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; {hidden}\n{program}"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT / "src")},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_whoever_uses_vitals_without_the_extra_is_told_its_name() -> None:
    program = """
import lifesign.vitals
try:
    lifesign.vitals.analyze_traces
except ImportError as error:
    print(error)
"""
    assert run_without(["numpy", "scipy"], program) == (
        'Vitals support is not installed (pip install "lifesign[vitals]")\n'
    )


def test_the_server_loads_without_numbers() -> None:
    program = "import lifesign.app; print('numpy' in {name for name, each in sys.modules.items() if each})"

    assert run_without(["numpy", "scipy", "cv2", "av"], program) == "False\n"


@pytest.mark.parametrize("name", ["nothing", "analyse_traces"])
def test_a_name_that_does_not_exist_is_no_attribute(name: str) -> None:
    import lifesign.vitals  # noqa: PLC0415 - the package under test, as a program has it

    with pytest.raises(AttributeError, match=name):
        getattr(lifesign.vitals, name)
