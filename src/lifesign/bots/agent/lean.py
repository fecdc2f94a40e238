"""Packages of a vendor's library, of which only what is used is loaded.

The library of Anthropic imports two thousand modules of types for the thirty that a conversation needs: 9 MB in each
run. Their packages do nothing but to import names from their modules, which is put off until a name is asked for.
A package that does anything else is loaded as ever.
"""

import ast
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

Places = Mapping[str, tuple[str, str | None]]
"""By name: the module that has it, relative to the package, and what it is called there; None: the module itself."""


def put_off(library: str) -> None:
    """Let the packages within a library load what is asked for, from here on."""
    sys.meta_path.insert(0, _Finder(f"{library}."))


class _Finder:
    """Finds packages that only import. Implements `importlib.abc.MetaPathFinder`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(self._prefix):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.origin is None or spec.submodule_search_locations is None:
            return None
        places = places_in(Path(spec.origin).read_text("utf-8"))
        if places is None:
            return None
        spec.loader = _Loader(name, spec.origin, places)
        return spec


class _Loader(SourceFileLoader):
    """Makes a package that imports a name when somebody asks for it."""

    def __init__(self, name: str, path: str, places: Places) -> None:
        super().__init__(name, path)
        self._places = places

    def exec_module(self, module: ModuleType) -> None:
        places, package = self._places, module.__name__

        def found(name: str) -> Any:  # Any: whatever a module has
            place, own = places.get(name, (f".{name}", None))
            try:
                holder = importlib.import_module(place, package)
            except ModuleNotFoundError as error:
                if error.name != f"{package}{place}":
                    raise
                raise AttributeError(f"module {package!r} has no attribute {name!r}") from error
            value = holder if own is None else getattr(holder, own)
            setattr(module, name, value)
            return value

        vars(module)["__getattr__"] = found
        vars(module)["__all__"] = [name for name in places if not name.startswith("_")]


def places_in(source: str) -> Places | None:
    """What a package imports from its modules; None when it does anything besides."""
    places: dict[str, tuple[str, str | None]] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.ImportFrom(module="__future__", level=0) | ast.Expr(value=ast.Constant()):
                continue
            case ast.ImportFrom(module=module, names=names, level=1) if all(each.name != "*" for each in names):
                for each in names:
                    place = (f".{each.name}", None) if module is None else (f".{module}", each.name)
                    places[each.asname or each.name] = place
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                continue
            case _:
                return None
    return places
