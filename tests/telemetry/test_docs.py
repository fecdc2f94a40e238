"""The page about telemetry names the attributes that are read, and no others."""

import re
from pathlib import Path

from lifesign.telemetry import sources

PAGE = Path(__file__).parents[2] / "docs/reference/telemetry.md"
_ROWS = {
    "`operation`": ("route",),
    "`tool`": ("tool", "entity"),
    "`agent`": ("agent",),
    "`service`": ("service",),
    "`version`": ("version",),
    "`environment`": ("environment",),
    "`provider`": ("provider",),
    "`model`": ("model",),
    "`tokens.input`": ("input_tokens",),
    "`tokens.output`": ("output_tokens",),
    "`tokens.cache_read`": ("cache_read_tokens",),
    "`tokens.cache_write`": ("cache_write_tokens",),
    "`tokens.reasoning`": ("reasoning_tokens",),
    "`tokens.total`": ("total_tokens",),
    "`cost_usd`": ("cost",),
    "`finish_reason`": ("finish_reason",),
    "`attempt`": ("attempt",),
    "arguments": ("arguments", "tool_input"),
    "result": ("result", "tool_output"),
}


def test_every_row_of_the_table_names_its_attributes_in_their_order() -> None:
    lines = PAGE.read_text().partition("### Which attribute says what")[2].splitlines()
    cells = {row[0].strip(): row[1] for line in lines if len(row := line.strip("|").split("|")) == 2}

    told = {name: [word for word in re.findall(r"`([^`]+)`", cells[name]) if word in sources.KNOWN] for name in _ROWS}

    read = {name: [each for field in fields for each in getattr(sources.ALL, field)] for name, fields in _ROWS.items()}
    assert told == read


def test_the_sources_of_session_ids_are_named_in_their_order() -> None:
    sentence = PAGE.read_text().partition("Its id is the first of")[2].partition("and `session.id` of the resource")[0]

    assert re.findall(r"`([^`]+)`", sentence) == list(sources.ALL.session)


def test_all_that_is_read_is_named() -> None:
    page = PAGE.read_text()

    assert [name for name in sorted(sources.KNOWN) if f"`{name}`" not in page] == []
