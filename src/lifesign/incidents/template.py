"""The texts of messages: placeholders filled in once, by plain substitution.  Source: spec/heartbeats.md, section 11.

Escaping for the medium (HTML, Slack, SMS, headers) is the sender's work.
"""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

MAX_LENGTH: Final = 4_000
_ELLIPSIS: Final = "..."

KNOWN_KEYS: Final = frozenset(
    {
        "name",
        "slug",
        "id",
        "namespace",
        "mode",
        "status",
        "reason",
        "deadline",
        "late",
        "step",
        "steps",
        "incident",
        "project",
        "url",
    },
)
"""The keys that every text knows; one of them without a value becomes empty."""

DEFAULT_TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "missed": "{{name}} missed its check-in: expected {{deadline}}, {{late}} s late",
        "unhealthy": "{{name}} reported that it is unhealthy",
        "run_stalled": "{{name}}: run made no progress",
        "run_overdue": "{{name}}: run takes too long",
    },
)
"""The text of a step without a message of its own, by the reason of the incident."""

RECOVERY_TEXT: Final = "{{name}} is back after {{duration}} s"
"""The only text with the key `duration`, which therefore is not among KNOWN_KEYS: it is known where it has a value."""

# No part of the pattern can match the same characters in two ways, so that hostile text costs no more than its length.
_PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
_LONGEST_PATH: Final = 2


# Any: metadata is the user's own JSON.
def render(template: str, values: Mapping[str, str], metadata: Mapping[str, Any] | None) -> str:
    """The template with its placeholders filled in, at most 4,000 characters; never raises.

    values: what is known, by key; also makes a key known that is not among KNOWN_KEYS.
    metadata: that of the last check-in, for `metadata.<key>[.<key>]`.
    An unknown key and a missing metadata key stay as written. What was filled in is never read as a template again.
    """

    def filled(placeholder: re.Match[str]) -> str:
        key = placeholder[1].strip(" \t")
        if key in values or key in KNOWN_KEYS:
            return values.get(key, "")
        found = _metadata_text(key, metadata)
        return placeholder[0] if found is None else found

    return _cut(_PLACEHOLDER.sub(filled, template))


def _metadata_text(key: str, metadata: Mapping[str, Any] | None) -> str | None:
    """What stands at a metadata path, strings as they are and the rest as compact JSON; None when nothing does."""
    root, *path = key.split(".")
    if root != "metadata" or not 1 <= len(path) <= _LONGEST_PATH:
        return None
    found: Any = metadata  # Any: as above
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found if isinstance(found, str) else _compact_json(found)


def _compact_json(value: object) -> str | None:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        # Stored metadata is always JSON. Should it ever not be, a page with the placeholder left in beats no page.
        return None


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - len(_ELLIPSIS)] + _ELLIPSIS
