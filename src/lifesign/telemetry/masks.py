"""What differs from one failure of a kind to the next is masked, so that they are counted as one.

Spec "Diagnosis", section 4. Every pattern takes linear time: it starts only where a word starts, and what it has read
it does not give back.
"""

import re
import unicodedata
from collections.abc import Callable
from typing import Final

LONGEST: Final = 200
_READ_CHARACTERS: Final = 4096
_MOST_PASSES: Final = 8

_HEX: Final = "[0-9A-Fa-f]"
_START: Final = r"(?<![0-9A-Za-z])"
_END: Final = r"(?![0-9A-Za-z])"

_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]++@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)++")
_URL = re.compile(r"(?<![\w+.-])([A-Za-z][A-Za-z0-9+.-]*+://[^\s/?#\"'<>]*+)([/?#][^\s\"'<>]*+)?((?:<url>)*+)")

# What a text must have for the pattern to be tried: most texts lack most of it, and that is seen much sooner.
_PLAIN: Final = (
    (".", re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)"), "<ip>"),
    (":", re.compile(rf"(?<![\w:.])(?:{_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}(?![\w:])"), "<ip>"),
    (
        "::",
        re.compile(
            rf"(?<![\w:.])(?=[A-Fa-f:]*+\d)(?:{_HEX}{{1,4}}(?::{_HEX}{{1,4}}){{0,6}})?"
            rf"::(?:{_HEX}{{1,4}}(?::{_HEX}{{1,4}}){{0,6}})?(?![\w:])"
        ),
        "<ip>",
    ),
    ("-", re.compile(rf"{_START}{_HEX}{{2}}-{_HEX}{{32}}-{_HEX}{{16}}-{_HEX}{{2}}{_END}"), "<trace>"),
    ("-", re.compile(rf"{_START}{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}{_END}"), "<uuid>"),
    ("", re.compile(rf"{_START}(?=[A-Fa-f]*+\d){_HEX}{{16,}}+{_END}"), "<hex>"),
    (
        "-",
        re.compile(
            r"(?<!\w)\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d++)?)?(?:[Zz]|[+-]\d{2}:?\d{2})?)?(?!\w)"
        ),
        "<date>",
    ),
    (
        "",
        re.compile(
            r"(?<![\w.])\d++(?:\.\d++)? ?"
            r"(?:ns|us|μs|ms|s|secs?|seconds?|mins?|minutes?|h|hours?|days?|milliseconds?)(?!\w)"
        ),
        "<dur>",
    ),
    ("", re.compile(r"\"[^\"]{21,}+\"|'[^']{21,}+'|`[^`]{21,}+`"), "<str>"),
    ("0", re.compile(rf"{_START}0[xX]{_HEX}++{_END}"), "<hex>"),
)

# An identifier may hold digits and be joined by dots and hyphens: `gpt-5`, `v1.2`, `s3`, `7f3a`.
_NUMBER_OR_IDENTIFIER = re.compile(
    r"[-+]?(?<![^\W\d])\d++(?:\.\d++)*+(?:[eE][-+]?\d++)?(?!\w)|(?P<identifier>\w++(?:[-.]\w++)*+)"
)


def masked(text: str) -> str:
    """A message or an error type without what is particular to one occurrence; at most 200 characters."""
    return _until_stable(text, "<url>")


def masked_operation(operation: str) -> str:
    """The same of an operation, whose scheme and host stay."""
    return _until_stable(operation, _host_alone)


def _until_stable(text: str, url: str | Callable[[re.Match[str]], str]) -> str:
    """Masked until there is nothing more to mask: a placeholder may set free what hung together with its digits."""
    before, after = "", _masked(_normal(text), url)
    for _ in range(_MOST_PASSES):
        if after == before:
            break
        before, after = after, _masked(after, url)
    return after


def _normal(text: str) -> str:
    text = text[:_READ_CHARACTERS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)[:_READ_CHARACTERS]
    return " ".join(text.split())


def _host_alone(found: re.Match[str]) -> str:
    site, rest, earlier = found.groups()
    return f"{site}/<url>" if earlier or (rest and rest != "/") else found.group()


def _masked(text: str, url: str | Callable[[re.Match[str]], str]) -> str:
    if "@" in text:
        text = _EMAIL.sub("<email>", text)
    if "://" in text:
        text = _URL.sub(url, text)
    for needed, pattern, placeholder in _PLAIN:
        if needed in text:
            text = pattern.sub(placeholder, text)
    return _NUMBER_OR_IDENTIFIER.sub(_number_masked, text)[:LONGEST].rstrip()


def _number_masked(found: re.Match[str]) -> str:
    return found.group() if found["identifier"] is not None else "<n>"
