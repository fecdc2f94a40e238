"""Tools that runs may use: their names, and what they can do to the safety of a project.

A tool is one of those that come with Lifesign, or `mcp:<server>/<tool>`, or `mcp:<server>/*` for all of a server.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from lifesign.bots.agent.messages import Tool

READS_UNTRUSTED: Final = "reads_untrusted"
EGRESS: Final = "egress"
PRIVATE: Final = "private"
LABELS: Final = (READS_UNTRUSTED, EGRESS, PRIVATE)
SERVER_LABELS: Final = frozenset({READS_UNTRUSTED, EGRESS})
"""Of the tools of a server of which nothing else is said."""
_OWN_LABELS: Final[Mapping[str, frozenset[str]]] = {
    "http_get": frozenset({READS_UNTRUSTED, EGRESS}),
    "lifesign_status": frozenset({PRIVATE}),
}
_REMOTE = re.compile(r"mcp:([A-Za-z0-9][A-Za-z0-9._-]{0,63})/(\*|[^\s/*]{1,128})")
ALL: Final = "*"

# Any, in these: JSON schemas.
_NOTHING: Final[dict[str, Any]] = {"type": "object", "properties": {}}

CATALOGUE: Final[Mapping[str, Tool]] = {
    each.name: each
    for each in (
        Tool("now", "The date and time now.", _NOTHING),
        Tool("lifesign_status", "What is down now: heartbeats that did not check in.", _NOTHING),
        Tool(
            "http_get",
            "Fetch a page by GET. Redirects are not followed; their location is told.",
            {
                "type": "object",
                "properties": {"url": {"type": "string", "description": "http:// or https://"}},
                "required": ["url"],
            },
            place="process",
        ),
        Tool(
            "notify_user",
            "Send one message to the people at once. To tell them of the result, end with report instead.",
            {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": 200},
                    "body": {"type": "string", "maxLength": 4000},
                    "severity": {"type": "string", "enum": ["info", "warning", "critical"]},
                },
                "required": ["title"],
            },
        ),
    )
}

REPORT: Final = Tool(
    "report",
    "End with this. noteworthy: whether people should hear of it.",
    {
        "type": "object",
        "properties": {
            "noteworthy": {"type": "boolean"},
            "severity": {"type": "string", "enum": ["info", "warning", "critical"]},
            "title": {"type": "string", "maxLength": 200},
            "body": {"type": "string", "maxLength": 4000},
            "dedupe_key": {"type": "string", "description": "The same for the same news"},
        },
        "required": ["noteworthy", "severity", "title", "body"],
    },
)


def offered(names: Sequence[str]) -> tuple[Tool, ...]:
    """The tools of an allow-list that come with Lifesign, and the report."""
    return (*(CATALOGUE[name] for name in names if name in CATALOGUE), REPORT)


# Servers of tools ---------------------------------------------------------------------------------------------------
def parted(name: str) -> tuple[str, str] | None:
    """Server and tool of a name; None for a tool that comes with Lifesign, and for what is no name."""
    found = _REMOTE.fullmatch(name)
    return None if found is None else (found[1], found[2])


def by_server(names: Iterable[str]) -> dict[str, tuple[str, ...] | None]:
    """The tools of each server in an allow-list; None for all of them."""
    found: dict[str, tuple[str, ...] | None] = {}
    for server, tool in filter(None, map(parted, names)):
        known = found.get(server, ())
        found[server] = None if tool == ALL or known is None else (*known, tool)
    return found


def is_among(name: str, names: Iterable[str]) -> bool:
    """Whether a list has a tool, by its name or with all of its server."""
    known = set(names)
    parts = parted(name)
    return name in known or (parts is not None and f"mcp:{parts[0]}/{ALL}" in known)


# Labels -------------------------------------------------------------------------------------------------------------
def labels_of(name: str, servers: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """What a tool can do. servers: the labels of each server of tools."""
    parts = parted(name)
    if parts is None:
        return _OWN_LABELS.get(name, frozenset())
    return servers.get(parts[0], SERVER_LABELS)


def is_trifecta(names: Sequence[str], approval: Sequence[str], servers: Mapping[str, frozenset[str]]) -> bool:
    """Whether tools together read strangers' texts, see private data, and can send it away unasked."""
    labels = frozenset[str]().union(*(labels_of(each, servers) for each in names))
    if not labels >= set(LABELS):
        return False
    return not all(is_among(each, approval) for each in names if EGRESS in labels_of(each, servers))
