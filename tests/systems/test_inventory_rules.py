"""What counts as a change, how grave it is, and which old inventories are kept."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.clock import EpochMs
from lifesign.inventory import rules
from lifesign.inventory.rules import Change, Kept, Volatile
from lifesign.settings import Settings

USUAL = Volatile.of(Settings.model_fields["inventory_ignore"].default)
_DAY = 86_400_000
NOW = EpochMs(1_767_614_400_000)  # 2026-01-05

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab/~", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["id", "name", "a", "b/~"]), inner),
    max_leaves=12,
)


# Differences --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": 1}, {"a": True}, [Change("/a", "changed", 1, True)]),
        ({"a": None}, {}, [Change("/a", "removed", old=None)]),
        ({}, {"a/b~c": []}, [Change("/a~1b~0c", "added", new=[])]),
        ({"a": {"b": 1}}, {"a": [1]}, [Change("/a", "changed", {"b": 1}, [1])]),
        ({"a": [1, 2]}, {"a": [1, 3, 4]}, [Change("/a/1", "changed", 2, 3), Change("/a/2", "added", new=4)]),
        # By name: the order of packages means nothing.
        (
            {"p": [{"name": "x", "v": 1}, {"name": "y", "v": 1}]},
            {"p": [{"name": "z"}, {"name": "y", "v": 2}]},
            [
                Change("/p/x", "removed", old={"name": "x", "v": 1}),
                Change("/p/y/v", "changed", 1, 2),
                Change("/p/z", "added", new={"name": "z"}),
            ],
        ),
        # `id` comes before `name`, unless it is not unique.
        ([{"id": 1, "name": "a"}], [{"id": 1, "name": "b"}], [Change("/1/name", "changed", "a", "b")]),
        (
            [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}],
            [{"id": 1, "name": "b"}],
            [Change("/a", "removed", old={"id": 1, "name": "a"})],
        ),
        # What one of them has by number and the other by text is the same thing.
        ([{"id": 1}], [{"id": "1"}], [Change("/1/id", "changed", 1, "1")]),
        ([], [{"name": "a"}], [Change("/a", "added", new={"name": "a"})]),
    ],
)
def test_differences_are_told_by_path(old: object, new: object, found: list[Change]) -> None:
    assert rules.differences(old, new) == found


@given(JSON, JSON)
def test_the_same_has_no_differences_and_others_have_the_opposite_ones_backwards(old: Any, new: Any) -> None:
    opposite = {"added": "removed", "removed": "added", "changed": "changed"}

    assert rules.differences(old, old) == []
    there, back = rules.differences(old, new), rules.differences(new, old)
    assert sorted((each.path, each.op) for each in there) == sorted((each.path, opposite[each.op]) for each in back)


def test_too_many_differences_are_told_as_one() -> None:
    most = {str(n): 0 for n in range(5000)}

    assert len(rules.differences({}, most)) == 5000
    assert rules.differences({}, most | {"more": 0}) == [Change("", "changed", {}, most | {"more": 0})]


# What may change without notice -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "is_volatile"),
    [
        ("/uptime", True),
        ("/os/uptime_seconds", True),
        ("/a/b/load1", True),
        ("/timestamp", True),
        ("/timestamps", False),
        ("/memory/used_bytes", True),
        ("/memory/total", False),
        ("/hardware/memory/free", True),
        ("/disk0/used", True),
        ("/disks/sda/used", False),
        ("/sensors/temperature_cpu", True),
        ("/packages/uptimed", True),
        ("/uptime/days", True),
        ("/os/version", False),
    ],
)
def test_the_usual_globs(path: str, is_volatile: bool) -> None:
    assert USUAL.matches(path) is is_volatile


def test_a_glob_is_taken_literally_but_for_its_stars() -> None:
    volatile = Volatile.of(" /a.b/*/c , x?, d/**/e, [x], f/**/**/h, ")

    paths = ("/a.b/1/c", "/aXb/1/c", "/a.b/1/2/c", "/xy", "/x", "/d/e", "/d/1/2/e", "/d", "/[x]", "/f/g/h")
    assert {path for path in paths if volatile.matches(path)} == {
        "/a.b/1/c",
        "/xy",
        "/d/e",
        "/d/1/2/e",
        "/[x]",
        "/f/g/h",
    }
    assert not Volatile.of("").matches("/anything")


def test_what_is_volatile_is_left_out_wherever_it_stands() -> None:
    document = {
        "uptime": {"days": 3, "hours": 4},
        "disks": [{"name": "sda", "size": 1}, {"name": "temperature", "size": 2}],
        "a": [{"load1": 1, "x": 2}, 5],
    }

    assert rules.steady(document, USUAL) == {"disks": [{"name": "sda", "size": 1}], "a": [{"x": 2}, 5]}


# How grave ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "about"),
    [
        ("/os/version", "os"),
        ("/host/kernel", "os"),
        ("/disks/sda", "hardware"),
        ("/networking/eth0", "network"),
        ("/users/root", "security"),
        ("/backups/last", "backup"),
        ("/packages/openssl", "features"),
        ("/services/ssh/port", "features"),
        ("/containers/web", "modules"),
        ("/cluster/quorum", "cluster"),
        ("/nodes/a", "nodes"),
        ("/OS/version", "system"),
        ("", "system"),
    ],
)
def test_what_a_change_is_about_is_told_by_its_path(path: str, about: str) -> None:
    assert rules.category(path) == about


@pytest.mark.parametrize(
    ("path", "op", "old", "new", "severity"),
    [
        ("/users/root", "removed", 1, None, "critical"),
        ("/cluster/a", "removed", {}, None, "critical"),
        ("/users/eve", "added", None, 1, "high"),
        ("/os/version", "changed", "12", "13", "high"),
        ("/nodes/a", "removed", 1, None, "high"),
        ("/disks/sda", "removed", 1, None, "high"),
        ("/backup/job", "removed", 1, None, "high"),
        ("/cpu/cores", "changed", 8, 4, "medium"),
        ("/network/eth0", "removed", 1, None, "medium"),
        ("/packages/x", "removed", 1, None, "low"),
        ("/packages/count", "changed", 100, 120, "low"),
        ("/packages/count", "changed", 100, 121, "medium"),
        ("/packages/count", "changed", 0, 1, "medium"),
        ("/ssh/port", "changed", 22, 23, "low"),
        ("/ssh/port", "changed", 22, 2222, "high"),
        ("/packages/on", "changed", False, True, "low"),
    ],
)
def test_how_grave_a_change_is(path: str, op: rules.Op, old: object, new: object, severity: str) -> None:
    assert rules.severity(Change(path, op, old, new), rules.category(path)) == severity


# Size ---------------------------------------------------------------------------------------------------------------
def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_document_may_be_32_levels_deep_and_have_100_000_values() -> None:
    assert not rules.is_too_much(_nested(32))
    assert rules.is_too_much(_nested(33))
    assert not rules.is_too_much([0] * 99_999)
    assert rules.is_too_much([0] * 100_000)


# What is kept -------------------------------------------------------------------------------------------------------
def _kept(*days_ago: float) -> list[Kept]:
    return [Kept(str(days), EpochMs(round(NOW - days * _DAY))) for days in days_ago]


def test_all_of_a_week_are_kept_then_the_last_of_each_day() -> None:
    snapshots = _kept(400, 20.4, 20.1, 20, 19.9, 6.9, 6.8, 1, 0.1)

    # 20.4 and 20.1 days ago was the day before 20 and 19.9 days ago, at noon.
    assert rules.surplus(snapshots, NOW) == ["20.4", "20.1", "20"]


def test_then_the_last_of_each_week_month_and_quarter_and_the_first_of_all() -> None:
    snapshots = _kept(800, 799, 420, 419, 200, 199, 60, 59, 0)

    assert rules.surplus(snapshots, NOW) == ["420", "200", "60"]


@given(st.lists(st.floats(0, 1000), max_size=60))
def test_the_first_and_the_latest_are_always_kept_and_twice_is_as_once(days_ago: list[float]) -> None:
    snapshots = [Kept(str(n), each.created_at) for n, each in enumerate(_kept(*sorted(days_ago, reverse=True)))]

    surplus = set(rules.surplus(snapshots, NOW))

    left = [each for each in snapshots if each.id not in surplus]
    assert left[:1] + left[-1:] == snapshots[:1] + snapshots[-1:]
    assert set(rules.surplus(left, NOW)) <= {left[0].id} if left else not surplus
    assert rules.surplus([], NOW) == []
