"""Reading files: what they say, where it stands, and what is wrong with them."""

import contextlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.config import document as documents
from lifesign.config.document import BadDocument, Document
from lifesign.config.kinds import wanted_of


def flaws_of(text: str) -> list[str]:
    with pytest.raises(BadDocument) as refused:
        wanted_of(documents.parsed(text, "f.yaml"), {})
    return [str(flaw) for flaw in refused.value.flaws]


def test_values_are_those_of_yaml_1_2() -> None:
    text = "a: [yes, off, 010, 0o10, 0x1f, 1e3, ~, true, 2026-01-01, '7', 1_000, '<<']"

    assert documents.parsed(text, "f").content == {
        "a": ["yes", "off", 10, 8, 31, 1000.0, None, True, "2026-01-01", "7", 1000, "<<"]
    }


def test_an_empty_file_says_nothing() -> None:
    assert documents.parsed("# only a comment\n", "f") == Document()


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("heartbeats:\n\ta: {}\n", "f.yaml:2: a tab cannot indent; use blanks"),
        ("channels:\n  a: {}\n  b: {}\n  a: {}\n", "f.yaml:4: channels.a: stands twice, first in line 2"),
        ("heartbeat:\n  a: {}\n", "f.yaml:1: heartbeat: is not known; sections are project, channels, policies, "),
        ("heartbeats: [a]\n", "f.yaml:1: heartbeats: must be a mapping of names"),
        ("heartbeats:\n  a: 5\n", "f.yaml:2: heartbeats.a: must be a mapping of fields"),
        ("- a\n- b\n", "f.yaml:1: must be a mapping such as `heartbeats:`"),
        ("a: [1\nb: 2\n", "f.yaml:2: is not YAML: "),
        ("project: !secret x\n", "f.yaml:1: project: the tag !secret is not known here"),
        ("project: 5\n", "f.yaml:1: project: must be the name or the id of a project"),
        ("bots: []\n", "f.yaml:1: bots: must be a mapping of names"),
        ("? [a, b]\n: c\n", "f.yaml:1: a key must be a plain word"),
        ("heartbeats: {' a': {}}\n", "f.yaml:1: heartbeats. a: a name must not be empty, nor begin or end with blanks"),
        ("maintenance: {a: {}}\n", "f.yaml:1: maintenance: must be a list"),
        ("maintenance:\n- {all: true}\n", "f.yaml:2: maintenance[0].name: is required"),
        ("[" * 1000, "f.yaml:1: is nested too deeply"),
        ("--- {}\n--- {}\n", "f.yaml:2: is not YAML: but found another document"),
        ("a: \x00\n", "f.yaml:1: is not YAML: "),
        ('heartbeats:\n  "a\\nb": 5\n', "f.yaml:2: heartbeats.a b: must be a mapping of fields"),
        ('project: "\\ud800"\n', "f.yaml:1: project: must be text that UTF-8 can carry"),
        ('heartbeats:\n  "\\ud800": {}\n', "f.yaml:2: heartbeats: a key must be text that UTF-8 can carry"),
        ("heartbeats: {a: {metadata: {x: .nan}}}", "f.yaml:1: heartbeats.a.metadata.x: must be a finite number"),
        ("heartbeats: {a: {metadata: {x: -.inf}}}", "f.yaml:1: heartbeats.a.metadata.x: must be a finite number"),
        (f"heartbeats: {{a: {{interval: {2**64}}}}}", "f.yaml:1: heartbeats.a.interval: must be a number of 64 bits"),
    ],
)
def test_what_is_no_project_is_refused_with_its_line(text: str, flaw: str) -> None:
    assert flaws_of(text)[0].startswith(flaw)


@pytest.mark.parametrize(
    ("fields", "flaw"),
    [
        (
            "mode: weekly, interval: 5",
            "heartbeats.a.mode: must be 'recurring', 'oneshot' or 'scheduled' (not 'weekly')",
        ),
        ("mode: recurring", "heartbeats.a.interval: is required for recurring"),
        ("mode: scheduled, schedule: '0 0 30 2 *'", "heartbeats.a.schedule: is not understood: bad day-of-month"),
        ("mode: recurring, interval: 5, color: red", "heartbeats.a.color: is not known; fields are name, mode, "),
        ("mode: recurring, interval: 5, grace: -1", "heartbeats.a.grace: must be between 0 and 31536000 (not '-1')"),
        ("mode: recurring, interval: 5, dependsOn: [a]", "heartbeats.a.dependsOn: names the heartbeat itself"),
        ("mode: recurring, interval: 5, pings: {method: GET}", "heartbeats.a.pings.method: is not known"),
        ("mode: recurring, interval: 5, tolerance: {failures: 3, window: 2}", "heartbeats.a.tolerance: failures must"),
    ],
)
def test_a_field_is_judged_as_the_server_would_judge_it(fields: str, flaw: str) -> None:
    assert flaws_of(f"heartbeats:\n  a: {{{fields}}}\n")[0].startswith(f"f.yaml:2: {flaw}")


def test_every_fault_is_told_at_once() -> None:
    text = """\
channels:
  mail: {type: email, config: {to: nobody}}
  bird: {type: pigeon, config: {}}
policies:
  empty: {steps: []}
  typo: {steps: [{channel: [mail]}]}
"""

    assert [flaw.split(": ")[:2] for flaw in flaws_of(text)] == [
        ["f.yaml:2", "channels.mail.config.to"],
        ["f.yaml:3", "channels.bird.type"],
        ["f.yaml:5", "policies.empty.steps"],
        ["f.yaml:6", "policies.typo.steps[0].channel"],
    ]


def test_a_circle_of_dependencies_is_told() -> None:
    beats = ("{mode: recurring, interval: 60, dependsOn: [%s]}" % other for other in "bca")  # noqa: UP031 - braces
    text = "heartbeats:\n" + "".join(f"  {name}: {fields}\n" for name, fields in zip("abc", beats, strict=True))

    assert flaws_of(text) == ["f.yaml:4: heartbeats.c.dependsOn: a depends on this heartbeat already"]


def test_an_alias_may_be_used_but_not_to_flood() -> None:
    shared = "heartbeats:\n  a: &usual {mode: recurring, interval: 60}\n  b: *usual\n"
    assert set(wanted_of(documents.parsed(shared, "f"), {}).items["heartbeats"]) == {"a", "b"}

    names = "abcdefghijklmnopqrstuvwxy"
    doubled = (f"{new}: &{new} [*{old}, *{old}]\n" for old, new in pairwise(names))
    bomb = "a: &a [x, x]\n" + "".join(doubled)
    assert "repeats itself without end" in flaws_of(bomb)[0]
    assert "repeats itself without end" in flaws_of("a: &a [*a]")[0]


# Several files ------------------------------------------------------------------------------------------------------
def test_the_files_of_a_directory_are_joined(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text("project: p\nmaintenance:\n- {name: one}\nheartbeats:\n  a: {}\n")
    (tmp_path / "2.yaml").write_text("project: p\nmaintenance:\n- {name: two}\nheartbeats:\n  b: {}\n")
    (tmp_path / "notes.txt").write_text("no: yaml: at: all")

    joined = documents.read(tmp_path)

    assert joined.content == {
        "project": "p",
        "maintenance": [{"name": "one"}, {"name": "two"}],
        "heartbeats": {"a": {}, "b": {}},
    }
    assert str(joined.place_of("maintenance[1].name")) == f"{tmp_path}/2.yaml:3"
    assert str(joined.place_of("heartbeats.b.grace")) == f"{tmp_path}/2.yaml:5"


def test_a_name_that_two_files_define_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text("project: p\nchannels:\n  a: {}\n")
    (tmp_path / "2.yaml").write_text("project: q\nchannels:\n  a: {}\n")

    with pytest.raises(BadDocument) as refused:
        documents.read(tmp_path)

    one, two = f"{tmp_path}/1.yaml", f"{tmp_path}/2.yaml"
    assert [str(flaw) for flaw in refused.value.flaws] == [
        f"{two}:1: project: is said otherwise in {one}:1",
        f"{two}:3: channels.a: is defined in {one}:3 as well",
    ]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    for path, flaw in (
        (tmp_path / "none.yaml", f"cannot read {tmp_path}/none.yaml: No such file or directory"),
        (latin, f"{latin}:2: is not UTF-8 text"),
    ):
        with pytest.raises(BadDocument) as refused:
            documents.read(path)
        assert str(refused.value) == flaw
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadDocument, match=r"holds no \*\.yaml file"):
        documents.read(empty)


# Secrets ------------------------------------------------------------------------------------------------------------
KEY = "R0123456789ABCDEFGHIJKLMNOPQRSTU"


def wanted_key(tmp_path: Path, value: str, **environment: str) -> tuple[str, tuple[str, ...]]:
    file = tmp_path / "lifesign.yaml"
    file.write_text(f"channels:\n  pager:\n    type: pagerduty\n    config:\n      routingKey: {value}\n")
    wanted = wanted_of(documents.read(file), environment)
    return wanted.items["channels"]["pager"].form["config"]["routingKey"], wanted.warnings


def test_a_secret_comes_from_the_environment_or_from_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "pager.key").write_text(KEY + "\n")

    assert wanted_key(tmp_path, "{env: PAGER}", PAGER=KEY) == (KEY, ())
    assert wanted_key(tmp_path, "{file: pager.key}") == (KEY, ())


def test_a_secret_in_the_file_itself_is_taken_with_a_warning(tmp_path: Path) -> None:
    value, warnings = wanted_key(tmp_path, KEY)

    assert value == KEY
    path = "channels.pager.config.routingKey"
    words = "is a secret in plain text; write {env: NAME} or {file: PATH}"
    assert warnings == (f"{tmp_path}/lifesign.yaml:5: {path}: {words}",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{env: MISSING}", "the environment variable MISSING is not set"),
        ("{env: EMPTY}", "the environment variable EMPTY is empty"),
        ("{env: BROKEN}", "the environment variable BROKEN is not UTF-8 text"),
        ("{file: none.key}", "cannot read the file none.key: No such file or directory"),
        ("{env: SHORT}", "must be 32 letters and digits"),
    ],
)
def test_a_secret_that_is_not_there_is_named_with_its_line(tmp_path: Path, value: str, words: str) -> None:
    with pytest.raises(BadDocument) as refused:
        wanted_key(tmp_path, value, EMPTY="", BROKEN="\udcff", SHORT="hunter2")

    assert str(refused.value) == f"{tmp_path}/lifesign.yaml:5: channels.pager.config.routingKey: {words}"


# Anything -----------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadDocument):
        wanted_of(documents.parsed(text, "f"), {})


_YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
_FIELD = st.sampled_from(["name", "mode", "interval", "steps", "config", "type", "tags", "schedule", "pings", "all"])


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "project": _YAML,
            "maintenance": st.lists(st.dictionaries(_FIELD, _YAML, max_size=4), max_size=2),
            **{
                kind: st.dictionaries(st.text(max_size=5), st.dictionaries(_FIELD, _YAML, max_size=4), max_size=2)
                for kind in ("channels", "policies", "heartbeats", "systems")
            },
        },
    )
)
def test_any_value_in_any_field_is_taken_or_refused(content: dict[str, object]) -> None:
    with contextlib.suppress(BadDocument):
        wanted_of(Document(content), {})
