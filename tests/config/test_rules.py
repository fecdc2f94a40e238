"""What a file and a server make a plan of, and that what was exported wants nothing of where it came from."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.config import document as documents
from lifesign.config.document import BadDocument
from lifesign.config.export import exported
from lifesign.config.forms import present_of
from lifesign.config.items import Ambiguous, Present
from lifesign.config.kinds import wanted_of
from lifesign.config.rules import Change, Plan, plan_of

Row = dict[str, Any]  # JSON
NOW = "2026-01-05T12:00:00.000Z"

MAIL: Row = {"id": "ch_1", "name": "mail", "type": "email", "config": {"to": "ops@example.org"}}
HOOK: Row = {"id": "ch_2", "name": "hook", "type": "webhook", "config": {"url": "https://x.org/", "secret": "****abcd"}}
PLAIN: Row = {
    "id": "pol_1",
    "name": "plain",
    "steps": [{"channels": ["ch_1"], "wait": 0}, {"channels": ["ch_2", "ch_1"], "wait": 60}],
    "repeatLastStep": False,
}
JOB: Row = {
    "id": "hb_1",
    "name": "Job",
    "slug": "job",
    "mode": "recurring",
    "interval": 60,
    "grace": 60,
    "timezone": "UTC",
    "stickyPause": True,
    "policy": "pol_1",
    "status": "firing",
    "metadata": {"rows": 7},
}
THE_SAME = """\
channels:
  mail: {type: email, config: {to: [ops@example.org]}}
  hook: {type: webhook, config: {url: "https://x.org/"}}
policies:
  plain: {steps: [{channels: [mail]}, {channels: [hook, mail], wait: 60}]}
heartbeats:
  job: {name: Job, mode: recurring, interval: 60, policy: plain}
"""


def on_server(**rows: list[Row]) -> Present:
    listed = {"channels": [MAIL, HOOK], "policies": [PLAIN], "heartbeats": [JOB]} | rows
    return present_of(listed)  # type: ignore[arg-type]  # the names are the kinds


def planned(text: str, present: Present, *, prune: bool = False, environment: Mapping[str, str] | None = None) -> Plan:
    document = documents.parsed(text, "f.yaml")
    return plan_of(document, wanted_of(document, environment or {}), present, prune=prune)


def told(changes: tuple[Change, ...]) -> list[str]:
    return [" ".join((each.action, each.kind, each.name, *map(str, each.differences))) for each in changes]


def test_what_is_equal_is_left_alone_whatever_life_has_done_to_it() -> None:
    plan = planned(THE_SAME, on_server())

    assert (plan.changes, plan.untouched) == ((), 4)


def test_what_is_missing_is_made_before_what_names_it() -> None:
    plan = planned(THE_SAME, on_server(channels=[], policies=[], heartbeats=[]))

    assert told(plan.changes) == [
        "create channels mail",
        "create channels hook",
        "create policies plain",
        "create heartbeats job",
    ]


CHANGES = {
    "a number": ("interval: 60,", "interval: 60, grace: 900,", ["grace: 60 -> 900"]),
    "gone and new": ("policy: plain", "tags: [db]", ["policy: plain -> none", 'tags: none -> ["db"]']),
    "a list": ("ops@", "dev@", ['config.to: ["ops@example.org"] -> ["dev@example.org"]']),
    "a step": ("wait: 60", "wait: 61", ["steps[1].wait: 60 -> 61"]),
    "a mode": (
        "mode: recurring, interval: 60",
        "mode: scheduled, schedule: '0 2  * * *'",
        ["interval: 60 -> none", "mode: recurring -> scheduled", "schedule: none -> 0 2 * * *"],
    ),
}


@pytest.mark.parametrize(("old", "new", "lines"), CHANGES.values(), ids=CHANGES)
def test_a_change_tells_old_and_new(old: str, new: str, lines: list[str]) -> None:
    assert old in THE_SAME

    (change,) = planned(THE_SAME.replace(old, new), on_server()).changes

    assert [str(each) for each in change.differences] == lines


def test_a_secret_that_shows_to_be_another_is_told_masked() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA=="
    text = THE_SAME.replace('"https://x.org/"', '"https://x.org/", secret: {env: HOOK}')

    plan = planned(text, on_server(), environment={"HOOK": secret})

    assert told(plan.changes) == ["update channels hook config.secret: ****abcd -> ****dA=="]
    assert secret not in str(plan.changes[0].differences)


def test_who_depends_on_another_is_made_after_it() -> None:
    text = "heartbeats:\n" + "".join(
        f"  {name}: {{mode: recurring, interval: 60, dependsOn: [{others}]}}\n"
        for name, others in (("a", "b, c"), ("b", "d"), ("c", "d, job"), ("d", ""))
    )

    assert [each.name for each in planned(text, on_server()).changes] == ["d", "b", "c", "a"]


def test_a_reference_may_be_to_what_the_server_has() -> None:
    text = "heartbeats:\n  new: {mode: recurring, interval: 60, policy: plain, channels: [mail], dependsOn: [job]}\n"

    assert told(planned(text, on_server()).changes) == ["create heartbeats new"]


def test_a_reference_to_nothing_is_refused_with_its_line() -> None:
    text = "heartbeats:\n  new:\n    mode: recurring\n    interval: 60\n    policy: none\n    dependsOn: [gone]\n"

    with pytest.raises(BadDocument) as refused:
        planned(text, on_server())

    assert [str(flaw) for flaw in refused.value.flaws] == [
        "f.yaml:5: heartbeats.new.policy: no policy is named 'none'",
        "f.yaml:6: heartbeats.new.dependsOn[0]: no heartbeat is named 'gone'",
    ]


def test_a_name_that_two_objects_have_means_neither() -> None:
    twice = on_server(channels=[MAIL, HOOK, MAIL | {"id": "ch_3"}])

    with pytest.raises(Ambiguous) as refused:
        planned(THE_SAME, twice)

    assert str(refused.value) == ("the server has 2 channels named 'mail': ch_1, ch_3; rename or delete all but one")


def test_only_what_an_apply_made_is_taken_away_users_first() -> None:
    made = {"origin": "apply"}
    present = on_server(
        channels=[MAIL | made, HOOK],
        policies=[PLAIN | made],
        heartbeats=[JOB | made, JOB | {"id": "hb_2", "slug": "by-hand"}, JOB | made | {"id": "hb_3", "slug": "b"}],
        systems=[{"id": "s", "name": "db1", "origin": "apply", "policy": None}],
    )

    assert planned("", present).changes == ()
    assert told(planned("", present, prune=True).changes) == [
        "delete systems db1",
        "delete heartbeats b",
        "delete heartbeats job",
        "delete policies plain",
        "delete channels mail",
    ]


def test_a_heartbeat_that_belongs_to_something_or_has_no_slug_is_no_matter_of_files() -> None:
    rows = [JOB | {"managedBy": "system s", "origin": "apply"}, {name: JOB[name] for name in JOB if name != "slug"}]

    assert planned("", on_server(heartbeats=rows), prune=True).changes == ()


# There and back -----------------------------------------------------------------------------------------------------
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=12)
NAME = TEXT.map(lambda text: f"n{text}".strip())
_ALWAYS: dict[str, st.SearchStrategy[object]] = {
    "name": NAME,
    "interval": st.integers(1, 10**8),
    "grace": st.integers(0, 10**7),
    "stickyPause": st.booleans(),
}
HEARTBEAT = st.fixed_dictionaries(
    _ALWAYS,
    optional={
        "namespace": NAME,
        "description": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        "tags": st.lists(st.from_regex(r"\A[a-z:#'\"~-]{1,6}\Z"), unique=True, min_size=1, max_size=3),
        "tolerance": st.just({"failures": 2, "window": 3}),
        "pings": st.just({"methods": "POST", "startKeywords": "a, b"}),
        "policy": st.just("pol_1"),
        "channels": st.just(["ch_2", "ch_1"]),
    },
)
SLUGS = st.from_regex(r"\A[a-z0-9_-]{1,10}\Z").filter(lambda slug: not slug.startswith("hb_"))


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(SLUGS, HEARTBEAT, max_size=4))
def test_what_was_exported_is_what_there_is(heartbeats: dict[str, Row]) -> None:
    usual = {"mode": "recurring", "timezone": "UTC"}
    rows = [usual | row | {"id": f"hb_{slug}", "slug": slug} for slug, row in heartbeats.items()]
    present = on_server(heartbeats=rows)

    text, variables = exported("default", present, NOW)
    secrets = dict.fromkeys(variables, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA==")
    plan = planned(text, present, environment=secrets)

    assert [each.kind for each in plan.changes] == ["channels"]  # whose secret is another here
    assert plan.untouched == len(rows) + 2
    document = documents.parsed(text, "f")
    again = present_of(
        {
            "channels": [MAIL, HOOK],
            "policies": [PLAIN],
            "heartbeats": [
                usual
                | {"id": f"hb_{name}", "slug": name, "grace": 60, "stickyPause": True}
                | item.form
                | ({"policy": "pol_1"} if "policy" in item.form else {})
                | ({"channels": ["ch_2", "ch_1"]} if "channels" in item.form else {})
                for name, item in wanted_of(document, secrets).items["heartbeats"].items()
            ],
        }
    )
    assert exported("default", again, NOW) == (text, variables)


def test_an_export_names_a_variable_for_each_secret_and_holds_none() -> None:
    webhook: Row = {"type": "webhook", "config": {"url": "https://x.org/", "secret": "****abcd"}}
    channels = [
        webhook | {"id": "1", "name": "ops hook"},
        webhook | {"id": "2", "name": "ops-hook"},
        {"id": "3", "name": "7 nights", "type": "slack", "config": {"webhookUrl": "https://hooks.slack.com/****wxyz"}},
        {"id": "4", "name": "電話", "type": "pagerduty", "config": {"routingKey": "****WXYZ", "severity": "critical"}},
        webhook | {"id": "5", "name": "b", "config": {"url": "https://x.org/", "headers": {"X-Api-Key": "****"}}},
    ]

    text, variables = exported("default", on_server(channels=channels, policies=[], heartbeats=[]), NOW)

    assert variables == [
        "CHANNEL_7_NIGHTS_WEBHOOK_URL",
        "B_HEADER_X_API_KEY",
        "OPS_HOOK_SECRET",
        "OPS_HOOK_SECRET_2",
        "ROUTING_KEY",
    ]
    assert "****" not in text


@pytest.mark.parametrize(
    ("name", "written"), [("", None), (" ", None), ("two\r\nlines\t", "two lines"), (" a  b ", "a  b")]
)
def test_a_name_that_only_clients_of_healthchecks_give_is_exported_as_one_that_can_be_applied(
    name: str, written: str | None
) -> None:
    present = on_server(channels=[], policies=[], heartbeats=[JOB | {"name": name, "policy": None}])

    text, _ = exported("default", present, NOW)

    job = documents.parsed(text, "f").content["heartbeats"]["job"]
    assert job.get("name") == written
    plan = planned(text, present)
    assert (plan.changes, plan.untouched) == ((), 1)


def test_windows_that_are_over_are_not_exported() -> None:
    windows: list[Row] = [
        {"id": "mw_1", "name": "gone", "startsAt": "2026-01-01T00:00:00.000Z", "endsAt": NOW, "all": True},
        {"id": "mw_2", "name": "open", "startsAt": NOW, "endsAt": "2026-01-06T00:00:00.000Z", "heartbeats": ["hb_1"]},
        {"id": "mw_3", "name": "nights", "schedule": "0 3 * * *", "duration": 60, "timezone": "UTC", "tags": ["db"]},
    ]

    text, _ = exported("default", on_server(maintenance=windows), NOW)

    assert documents.parsed(text, "f").content["maintenance"] == [
        {"name": "nights", "schedule": "0 3 * * *", "duration": 60, "tags": ["db"]},
        {"name": "open", "startsAt": NOW, "endsAt": "2026-01-06T00:00:00.000Z", "heartbeats": ["job"]},
    ]


def test_deleted_heartbeats_are_not_exported_with_the_windows_that_they_were_in() -> None:
    nights = {"schedule": "0 3 * * *", "duration": 60, "timezone": "UTC"}
    windows: list[Row] = [
        {"id": "mw_1", "name": "left", "heartbeats": ["hb_gone", "hb_1"]} | nights,
        {"id": "mw_2", "name": "of nobody", "heartbeats": ["hb_gone"]} | nights,
    ]
    present = on_server(maintenance=windows)

    text, variables = exported("default", present, NOW)

    (left,) = documents.parsed(text, "f").content["maintenance"]
    assert (left["name"], left["heartbeats"]) == ("left", ["job"])
    secrets = dict.fromkeys(variables, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA==")
    assert [each.kind for each in planned(text, present, environment=secrets).changes] == ["channels"]
