"""The client of the Model Context Protocol, without the server that its package loads beside it.

The package imports its server, and with it a web server and cryptography, for a way to talk within one process: 16 MiB
in each run that uses a server of tools, and none of it is used. Its modules need no more of their packages than where
they lie, so the packages are known, but not executed, before the modules are imported.
"""

import importlib
import sys
from importlib.util import find_spec, module_from_spec

_PACKAGES = ("mcp", "mcp.client")


def _know(package: str) -> None:
    spec = find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(package)
    sys.modules[package] = module_from_spec(spec)


def _forget() -> None:
    for name in [each for each in sys.modules if each == "mcp" or each.startswith("mcp.")]:
        del sys.modules[name]


def _load() -> None:
    if "mcp" in sys.modules:
        return
    try:
        for each in _PACKAGES:
            _know(each)
        importlib.import_module("mcp.client.session")
        importlib.import_module("mcp.client.streamable_http")
    except ImportError:
        # Another version of the package: with all that it wants.
        _forget()


_load()

from mcp.client.session import ClientSession  # noqa: E402 - as said above
from mcp.client.streamable_http import streamable_http_client  # noqa: E402 - as said above
from mcp.shared.message import SessionMessage  # noqa: E402 - as said above

__all__ = ["ClientSession", "SessionMessage", "streamable_http_client"]
