"""What runs on the machines that are watched. Imports nothing of the server and nothing but the standard library.

`Client` reports for jobs written in Python; `agent` reports for a machine.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifesign.client.jobs import Client, LifesignError, Run

__all__ = ["DEFAULT_LEASE_S", "Client", "LifesignError", "Run"]

DEFAULT_LEASE_S = 60
"""Seconds within which a run reports when nothing else is said."""


def __getattr__(name: str) -> Any:  # Any: whatever the module calls so
    # Only when asked for: the agent is to stay small.
    if name in __all__:
        from lifesign.client import jobs  # noqa: PLC0415 - as above

        return getattr(jobs, name)
    raise AttributeError(name)
