"""Tools that the process of a run executes itself, and how what they give is handed to the model."""

import re
import secrets
from typing import Any, Final

from lifesign.bots.agent.network import Network, NotReached
from lifesign.channels.targets import BadUrl, parse_url

MAX_RESULT_CHARACTERS: Final = 32_000
_MAX_PAGE_BYTES: Final = 262_144
_HEADERS: Final = (("accept", "text/*, application/json, application/xml;q=0.9, */*;q=0.1"), ("user-agent", "Lifesign"))
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MARK = re.compile(r"</?data\b", re.IGNORECASE)


class ToolFailed(Exception):
    """A tool gave nothing; the message is for the model."""


def as_data(source: str, text: str) -> str:
    """A text from elsewhere, so delimited that it can neither end its frame nor be taken for words of ours."""
    mark = secrets.token_hex(4)
    return f'<data-{mark} from="{source}">\n{_MARK.sub("<_data", text)}\n</data-{mark}>'


def clipped(text: str) -> str:
    """A text that is not too long for a model."""
    if len(text) <= MAX_RESULT_CHARACTERS:
        return text
    return f"{text[:MAX_RESULT_CHARACTERS]}\n[cut: {len(text) - MAX_RESULT_CHARACTERS} more characters]"


async def http_get(network: Network, arguments: dict[str, Any]) -> str:  # Any: JSON of the model
    """A page, as text. Raises ToolFailed."""
    url = arguments.get("url")
    if not isinstance(url, str):
        raise ToolFailed("url must be a string")
    try:
        parse_url(url)
    except BadUrl as error:
        raise ToolFailed(f"url {error}") from error
    try:
        answer = await network.send("GET", url, _HEADERS, most_bytes=_MAX_PAGE_BYTES)
    except NotReached as error:
        raise ToolFailed(str(error)) from error
    kind = answer.headers.get("content-type", "unknown")
    lines = [f"status {answer.status}", f"content-type {kind}"]
    if answer.status in _REDIRECTS:
        lines.append(f"location {answer.headers.get('location', '')}")
    text = answer.body.decode(_charset(kind), "replace")
    rest = "" if answer.is_whole else "\n[cut: the answer is longer]"
    return "\n".join([*lines, "", text + rest])


def _charset(content_type: str) -> str:
    found = re.search(r"charset=\"?(utf-8|us-ascii|iso-8859-1|windows-1252)", content_type, re.IGNORECASE)
    return found[1] if found else "utf-8"
