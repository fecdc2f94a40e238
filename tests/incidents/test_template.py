"""Message templates: one pass of plain substitution."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.incidents.template import DEFAULT_TEXTS, KNOWN_KEYS, RECOVERY_TEXT, render


def test_known_keys_and_metadata_are_filled_in_and_unknown_ones_stay() -> None:
    text = render("{{name}} {{nope}} {{metadata.host}}", {"name": "Nightly"}, {"host": "a"})

    assert text == "Nightly {{nope}} a"


def test_blanks_inside_the_braces_are_allowed() -> None:
    assert render("{{ name }}|{{\tname}}|{{name  }}", {"name": "N"}, None) == "N|N|N"


@pytest.mark.parametrize("key", sorted(KNOWN_KEYS))
def test_a_known_key_without_a_value_becomes_empty(key: str) -> None:
    assert render(f"<{{{{{key}}}}}>", {}, None) == "<>"


def test_the_known_keys_are_those_of_the_specification() -> None:
    assert " ".join(sorted(KNOWN_KEYS)) == (
        "deadline id incident late mode name namespace project reason slug status step steps url"
    )


@pytest.mark.parametrize(
    "template",
    [
        "",
        "plain",
        "{{nope}}",
        "{{ nope }}",
        "{{}}",
        "{{ }}",
        "{{Name}}",
        "{{name.x}}",
        "{name}",
        "{ {name} }",
        "{{name}",
        "{{name",
        "name}}",
        "{{duration}}",
        "{{metadata}}",
        "{{metadata.}}",
        "{{metadata.missing}}",
        "{{metadata.host.name}}",
        "{{metadata.disk.missing}}",
        "{{metadata.disk.deep.deeper}}",
        "{{metadata.list.0}}",
        "{{metadata..host}}",
    ],
)
def test_what_is_no_known_placeholder_stays_literally(template: str) -> None:
    metadata = {"host": "a", "disk": {"deep": {"deeper": 1}}, "list": [1]}

    assert render(template, {"name": "N"}, metadata) == template


def test_a_metadata_key_stays_when_there_is_no_metadata() -> None:
    assert render("{{metadata.host}}", {}, None) == "{{metadata.host}}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ("", ""),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        ([1, "b"], '[1,"b"]'),
        ({"k": "é"}, '{"k":"é"}'),
    ],
)
def test_strings_are_filled_in_as_they_are_and_the_rest_as_compact_json(value: object, text: str) -> None:
    assert render("{{metadata.a}}/{{metadata.b.c}}", {}, {"a": value, "b": {"c": value}}) == f"{text}/{text}"


def test_metadata_keys_may_have_any_characters_but_dots_and_braces() -> None:
    assert render("{{metadata.free space-é_1}}", {}, {"free space-é_1": "12 GB"}) == "12 GB"


def test_what_was_filled_in_is_never_read_as_a_template() -> None:
    values = {"name": "{{slug}}", "slug": "{{name}}", "late": "}}", "step": "{{"}

    assert render("{{name}}{{slug}}", values, None) == "{{slug}}{{name}}"
    assert render("{{step}}name{{late}}", values, None) == "{{name}}"
    assert render("{{metadata.a}}", values, {"a": "{{name}}"}) == "{{name}}"


def test_outer_braces_stay_around_a_placeholder() -> None:
    assert render("{{{name}}}", {"name": "N"}, None) == "{N}"


def test_four_thousand_characters_fit_and_more_are_cut_with_dots() -> None:
    assert render("{{name}}", {"name": "x" * 4000}, None) == "x" * 4000
    assert render("{{name}}", {"name": "x" * 4001}, None) == "x" * 3997 + "..."


def test_the_duration_is_known_where_it_has_a_value() -> None:
    assert render(RECOVERY_TEXT, {"name": "Nightly", "duration": "90"}, None) == "Nightly is back after 90 s"


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("missed", "N missed its check-in: expected 2026-03-08T07:00:00.000Z, 61 s late"),
        ("unhealthy", "N reported that it is unhealthy"),
        ("run_stalled", "N: run made no progress"),
        ("run_overdue", "N: run takes too long"),
    ],
)
def test_the_default_text_of_each_reason(reason: str, text: str) -> None:
    values = {"name": "N", "deadline": "2026-03-08T07:00:00.000Z", "late": "61"}

    assert render(DEFAULT_TEXTS[reason], values, None) == text


def test_metadata_that_is_no_json_leaves_the_placeholder() -> None:
    circle: list[object] = []
    circle.append(circle)

    assert render("{{metadata.a}} {{metadata.b}}", {}, {"a": object(), "b": circle}) == "{{metadata.a}} {{metadata.b}}"


pieces = st.sampled_from(
    ["{{", "}}", "{", "}", " ", ".", "name", "slug", "nope", "metadata.", "a", "b", "{{name}}", "{{ metadata.a }}"]
)
templates = st.one_of(st.text(), st.lists(pieces, max_size=40).map("".join))
json_values: st.SearchStrategy[Any] = st.recursive(  # Any: JSON
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), templates),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
metadatas = st.one_of(st.none(), st.dictionaries(st.sampled_from(["a", "b", ""]), json_values))


@given(templates, st.dictionaries(st.sampled_from(["name", "slug", "url"]), templates), metadatas)
def test_rendering_never_raises_and_never_exceeds_the_limit(
    template: str,
    values: dict[str, str],
    metadata: dict[str, Any] | None,  # Any: JSON
) -> None:
    assert len(render(template, values, metadata)) <= 4000


@given(st.lists(st.sampled_from(["name", "slug", "-", " "]), max_size=20), templates, templates)
def test_each_placeholder_gives_its_value_untouched(parts: list[str], name: str, slug: str) -> None:
    values = {"name": name, "slug": slug}
    template = "".join(f"{{{{{part}}}}}" if part in values else part for part in parts)
    expected = "".join(values.get(part, part) for part in parts)

    text = render(template, values, None)

    assert text == (expected if len(expected) <= 4000 else expected[:3997] + "...")


def test_hostile_templates_cost_no_more_than_their_length() -> None:
    # With a pattern that can backtrack these would take minutes.
    assert render("{{" + " " * 100_000, {}, None).startswith("{{   ")
    assert render("{" * 100_000, {}, None).startswith("{{{")
    assert render("{{ a" * 25_000, {}, None).startswith("{{ a{{ a")
