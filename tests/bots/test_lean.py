"""Packages that load what is asked for only."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifesign.bots.agent import lean


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A library with one package, which imports from three modules; one of them cannot be loaded."""
    package = tmp_path / "vendor" / "types"
    package.mkdir(parents=True)
    (tmp_path / "vendor" / "__init__.py").write_text("")
    (package / "__init__.py").write_text(
        "from __future__ import annotations\n\nfrom . import other\nfrom .good import Good as Good, old as new\n"
        "from .bad import Bad as Bad\n"
    )
    (package / "good.py").write_text("class Good: pass\nold = 7\n")
    (package / "other.py").write_text("")
    (package / "unnamed.py").write_text("")
    (package / "bad.py").write_text("import vendor_has_no_such_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    yield package
    for name in [each for each in sys.modules if each.partition(".")[0] == "vendor"]:
        del sys.modules[name]


def test_only_the_modules_are_loaded_whose_names_are_asked_for(library: Path) -> None:
    lean.put_off("vendor")

    types = importlib.import_module("vendor.types")

    assert (types.new, types.Good.__name__) == (7, "Good")
    assert types.unnamed.__name__ == "vendor.types.unnamed"
    assert {"vendor.types.good", "vendor.types.unnamed"} <= set(sys.modules)
    assert not {"vendor.types.other", "vendor.types.bad"} & set(sys.modules)


def test_what_is_not_there_is_told_as_ever(library: Path) -> None:
    lean.put_off("vendor")

    types = importlib.import_module("vendor.types")

    with pytest.raises(AttributeError, match=r"module 'vendor.types' has no attribute 'Gone'"):
        _ = types.Gone
    with pytest.raises(ModuleNotFoundError, match="vendor_has_no_such_thing"):
        _ = types.Bad


@pytest.mark.parametrize(
    "more", ["import os", "from os import sep", "from .good import *", "x = 1", "from ..a import b"]
)
def test_a_package_that_does_anything_else_is_loaded_as_ever(library: Path, more: str) -> None:
    lean.put_off("vendor")
    source = f"from .good import Good as Good\n{more}\n"

    assert lean.places_in(source) is None
    (library / "__init__.py").write_text(source.replace("from ..a import b", "assert True"))
    importlib.import_module("vendor.types")
    assert "vendor.types.good" in sys.modules
