"""Bots and their schedules in files: what is refused, what is compared, what becomes of them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.config import apply as applying
from lifesign.config import document as documents
from lifesign.config.apply import Progress
from lifesign.config.bots_api import Bots
from lifesign.config.document import BadDocument
from lifesign.config.export import exported
from lifesign.config.forms import present_of
from lifesign.config.items import Ambiguous, Present
from lifesign.config.kinds import wanted_of
from lifesign.config.rules import Plan, plan_of

Row = dict[str, Any]  # JSON
NOW = "2026-01-05T12:00:00.000Z"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA=="

MAIL: Row = {"id": "ch_1", "name": "mail", "type": "email", "config": {"to": "ops@example.org"}}
PLAIN: Row = {"id": "pol_1", "name": "plain", "steps": [{"channels": ["ch_1"], "wait": 0}], "repeatLastStep": False}
# As the API answers.
WATCH: Row = {
    "id": 7,
    "uuid": "bot_1",
    "name": "watch",
    "model": "small",
    "instruction": None,
    "max_reply_tokens": 500,
    "top": None,
    "status": 1,
    "heartbeat": 1,
    "created_at": NOW,
    "updated_at": NOW,
    "lifesign": {
        "provider": "default",
        "fallback_models": [],
        "credits_per_1k_tokens": 1,
        "runner": {"kind": "builtin"},
        "tools": ["now"],
        "approval_tools": [],
        "telemetry_content": False,
    },
}
LOOK: Row = {
    "uuid": "sch_1",
    "bot_id": 7,
    "member_id": None,
    "prompt": "Look.",
    "enabled": 1,
    "interval_minutes": None,
    "active_hours_start": None,
    "active_hours_end": None,
    "active_days": None,
    "cron_pattern": "0 6 * * *",
    "timezone": "UTC",
    "credit_budget": 2.5,
    "credits_used": 1,
    "last_status": "error",
    "execution_count": 9,
    "error_count": 1,
    "max_consecutive_errors": 5,
    "lifesign": {
        "bot_uuid": "bot_1",
        "paused_reason": None,
        "paused_by": None,
        "jitter_seconds": 0,
        "overlap": "skip",
        "catch_up": "one",
        "catch_up_window_seconds": None,
        "session": "day",
        "limits": {"min_run_credits": 0.5},
        "notify": {"channels": ["ch_1", "ch_gone"]},
        "precheck": None,
        "tools": [],
        "approval": "deny",
        "retry_lost": False,
        "watch": {"policy": "pol_1", "grace_seconds": 300, "errors": False},
    },
}
THE_SAME = """\
channels:
  mail: {type: email, config: {to: [ops@example.org]}}
policies:
  plain: {steps: [{channels: [mail]}]}
bots:
  watch:
    heartbeat: true
    lifesign: {tools: [now]}
    schedules:
    - prompt: " Look. "
      enabled: "1"
      cron_pattern: "0  6 * * *"
      credit_budget: 2.5
      lifesign: {limits: {min_run_credits: 0.5}, notify: {channels: [mail]}, tools: [], watch: {policy: plain}}
"""
SCHEDULE = 'schedule watch: "Look."'


class RefusedError(Exception):
    """The server says no."""


class Recorder:
    """A server that has some bots, and notes what it is asked to change."""

    def __init__(
        self, bots: list[Row], schedules: list[Row], subscribers: list[Row] | None = None, *, refuses: str = ""
    ) -> None:
        self._refuses = refuses
        self.asked: list[tuple[str, str, Any]] = []
        self.read: list[str] = []
        self._lists = {"bots": bots, "heartbeats": schedules, "subscribers": subscribers or []}

    def get(self, path: str, **query: Any) -> Row:
        """Two pages of one row, when there are two rows."""
        self.read.append(path)
        assert query["project_id"] == "prj_1"
        name = {"/v1/bot/readall": "bots", "/v1/bot/subscriber/readall": "subscribers"}.get(path, "heartbeats")
        rows = [each for each in self._lists[name] if each.get("lifesign", {}).get("bot_uuid") == query.get("bot_id")]
        start = int(query["cursor"] or 0)
        more = {"next_cursor": str(start + 1)} if len(rows) > start + 1 else {}
        return {name: rows[start : start + 1]} | more

    def rows(self, path: str, name: str, limit: int | None) -> Row:
        raise AssertionError(path)

    def post(self, path: str, body: Any = None) -> Row:
        self.asked.append(("POST", path, body))
        if path == self._refuses:
            raise RefusedError
        own = {"runner": {"kind": "http", "secret": SECRET}} if path.endswith("create") else {}
        return {each: {"uuid": f"new_{len(self.asked)}", "lifesign": own} for each in ("bot", "heartbeat")}

    def put(self, path: str, body: Any) -> Row:
        self.asked.append(("PUT", path, body))
        return {"bot": {"uuid": body["bot_id"]}}

    def patch(self, path: str, body: Any) -> Row:
        raise AssertionError(path)

    def delete(self, path: str, **query: Any) -> None:
        self.asked.append(("DELETE", path, query))


def on_server(bots: list[Row] | None = None, schedules: list[Row] | None = None, **rows: list[Row]) -> Present:
    calls = Bots(Recorder([WATCH] if bots is None else bots, [LOOK] if schedules is None else schedules), "prj_1")
    listed = calls.listed()
    found = {"channels": [MAIL], "policies": [PLAIN], "bots": listed, "schedules": calls.schedules(listed)}
    return present_of(found | rows)  # type: ignore[arg-type]  # the names are the kinds


def planned(text: str, present: Present, *, prune: bool = False, **environment: str) -> Plan:
    document = documents.parsed(text, "f.yaml")
    return plan_of(document, wanted_of(document, environment), present, prune=prune)


def told(plan: Plan) -> list[str]:
    return [f"{each.action} {each.subject}" for each in plan.changes]


def sent(plan: Plan, present: Present) -> tuple[list[tuple[str, str, Any]], Progress]:
    server, progress = Recorder([], []), Progress()
    applying.carry_out(server, plan, present, progress, lambda: None, project_id="prj_1")
    return server.asked, progress


def made_by_apply(row: Row) -> Row:
    return row | {"lifesign": row["lifesign"] | {"origin": "apply"}}


def test_what_is_equal_is_left_alone_whatever_life_has_done_to_it() -> None:
    plan = planned(THE_SAME, on_server())

    assert (plan.changes, plan.untouched) == ((), 4)


FLAWS = {
    "a field of a bot": ("    heartbeat: true", "    heartbeats: true", ":7: bots.watch.heartbeats: is not known; "),
    "an option": ("{tools: [now]}", "{tool: [now]}", ":8: bots.watch.lifesign.tool: is not known; "),
    "who made it": ("{tools: [now]}", "{origin: me}", ":8: bots.watch.lifesign.origin: is not known; "),
    "a tool": ("{tools: [now]}", "{tools: [then]}", ":8: bots.watch.lifesign.tools: unknown tool 'then'"),
    "options": ("{tools: [now]}", "now", ":8: bots.watch.lifesign: must be a mapping of fields"),
    "a runner": ("{tools: [now]}", "{runner: {kind: http}}", ":8: bots.watch.lifesign.runner.url: is required"),
    "a secret": (
        "{tools: [now]}",
        "{runner: {kind: http, url: 'https://x.org', secret: {env: NONE}}}",
        ":8: bots.watch.lifesign.runner.secret: the environment variable NONE is not set",
    ),
    "a switch": ("heartbeat: true", "heartbeat: maybe", ":7: bots.watch.heartbeat: must be true or false"),
    "no list": ("    - prompt", "      prompt", ":9: bots.watch.schedules: must be a list"),
    "a field": ("enabled", "enable", ":11: bots.watch.schedules[0].enable: is not known; "),
    "no prompt": ('prompt: " Look. "', "prompt: null", ":10: bots.watch.schedules[0].prompt: is required"),
    "a pattern": ("0  6 * * *", "0 25 * * *", ":12: bots.watch.schedules[0].cron_pattern: "),
    "two timings": (
        'enabled: "1"',
        "interval_minutes: 5",
        ":12: bots.watch.schedules[0].cron_pattern: give either cron_pattern or interval_minutes",
    ),
    "a limit": ("0.5", "none", ":14: bots.watch.schedules[0].lifesign.limits.min_run_credits: must be a number"),
    "another channel": (
        "channels: [mail]}, tools",
        "channels: [sms]}, tools",
        ":14: bots.watch.schedules[0].lifesign.notify.channels[0]: no channel is named 'sms'",
    ),
    "a policy": (
        "policy: plain",
        "policy: none",
        ":14: bots.watch.schedules[0].lifesign.watch.policy: no policy is na",
    ),
    "twice": (
        "    schedules:\n",
        "    schedules:\n    - {prompt: Look.}\n",
        ":11: bots.watch.schedules[1]: has the prompt of another one, in f.yaml:10",
    ),
}


@pytest.mark.parametrize(("old", "new", "flaw"), FLAWS.values(), ids=FLAWS)
def test_a_fault_is_told_with_its_line(old: str, new: str, flaw: str) -> None:
    assert old in THE_SAME

    with pytest.raises(BadDocument) as refused:
        planned(THE_SAME.replace(old, new, 1), on_server())

    assert str(refused.value.flaws[0]).startswith(f"f.yaml{flaw}")


def test_a_secret_in_the_file_is_warned_of_and_not_in_what_is_compared() -> None:
    text = THE_SAME.replace("{tools: [now]}", f"{{runner: {{kind: http, url: 'https://x.org/', secret: {SECRET}}}}}")
    document = documents.parsed(text, "f.yaml")

    wanted = wanted_of(document, {})

    (warning,) = wanted.warnings
    assert warning.startswith("f.yaml:8: bots.watch.lifesign.runner.secret: is a secret in plain text")
    assert SECRET not in str(wanted.items["bots"]["watch"].form)


CHANGES = {
    "left out": ("    lifesign: {tools: [now]}\n", "", ['lifesign.tools: ["now"] -> []']),
    "own fields": ("heartbeat: true", "heartbeat: true, instruction: Hi, status: 0, model: big".replace(", ", "\n    "),
        ["instruction: none -> Hi", "model: small -> big", "status: true -> false"]),
    "a runner": ("{tools: [now]}", "{tools: [now], runner: {kind: command, command: report}}",
        ["lifesign.runner.command: none -> report", "lifesign.runner.kind: builtin -> command"]),
    "a timing": ('cron_pattern: "0  6 * * *"', "interval_minutes: 5",
        ["cron_pattern: 0 6 * * * -> none", "interval_minutes: none -> 5"]),
    "options": ("{min_run_credits: 0.5}", "{max_requests: 5}",
        ["lifesign.limits.max_requests: none -> 5", "lifesign.limits.min_run_credits: 0.5 -> none"]),
    "tools": ("tools: [], ", "", ["lifesign.tools: [] -> none"]),
    "nobody told": ("[mail]}, tools", "[]}, tools", ['lifesign.notify.channels: ["mail"] -> []']),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "lines"), CHANGES.values(), ids=CHANGES)
def test_a_change_tells_old_and_new(old: str, new: str, lines: list[str]) -> None:
    assert old in THE_SAME

    (change,) = planned(THE_SAME.replace(old, new), on_server()).changes

    assert [str(each) for each in change.differences] == lines


def test_what_differs_is_sent_with_ids_for_names() -> None:
    present = on_server()
    text = THE_SAME.replace("    lifesign: {tools: [now]}\n", "    instruction: Hi\n")
    text = text.replace("{min_run_credits: 0.5}, notify: {channels: [mail]}", "{}, notify: {channels: [mail, new]}")
    text = text.replace('      cron_pattern: "0  6 * * *"\n', "").replace(
        "policies:", "  new: {type: email, config: {to: [a@example.org]}}\npolicies:"
    )
    # The channel is there as well: what is looked at is what becomes of its id.
    present = on_server(channels=[MAIL, MAIL | {"id": "ch_2", "name": "new", "config": {"to": "a@example.org"}}])

    asked, _ = sent(planned(text, present), present)

    assert asked == [
        (
            "PUT",
            "/v1/bot/update",
            {
                "project_id": "prj_1",
                "bot_id": "bot_1",
                "instruction": "Hi",
                "lifesign": {"tools": [], "approval_tools": [], "acknowledge_trifecta": False},
            },
        ),
        (
            "POST",
            "/v1/bot/heartbeat/configure",
            {
                "project_id": "prj_1",
                "bot_id": "bot_1",
                "uuid": "sch_1",
                "interval_minutes": 30,
                "cron_pattern": None,
                "timezone": "UTC",
                "active_hours_start": None,
                "active_hours_end": None,
                "active_days": None,
                "lifesign": {"limits": {"min_run_credits": None}, "notify": {"channels": ["ch_1", "ch_2"]}},
            },
        ),
    ]


def test_a_bot_is_made_before_its_schedules_and_its_new_secret_is_told() -> None:
    present = on_server(bots=[], schedules=[])
    text = THE_SAME.replace("{tools: [now]}", "{runner: {kind: http, url: 'https://x.org/', secret: {env: MINE}}}")
    plan = planned(text, present, MINE=SECRET)

    asked, progress = sent(plan, present)

    assert told(plan) == ["create bot watch", f"create {SCHEDULE}"]
    (_, _, bot), (_, _, schedule) = asked
    assert (bot["name"], bot["lifesign"]["origin"]) == ("watch", "apply")
    assert bot["lifesign"]["runner"] == {"kind": "http", "url": "https://x.org/", "secret": SECRET}
    assert (schedule["bot_id"], schedule["lifesign"]["origin"]) == ("new_1", "apply")
    assert (schedule["lifesign"]["notify"], schedule["lifesign"]["watch"]["policy"]) == (
        {"channels": ["ch_1"]},
        "pol_1",
    )
    assert [(each.subject, dict(each.fields)) for each in progress.secrets] == [("bot watch", {"secret": SECRET})]


def test_a_bot_that_rests_is_offline_while_its_schedules_are_made() -> None:
    off = THE_SAME.replace("    heartbeat: true\n", "    status: true\n")
    present = on_server(bots=[], schedules=[])

    asked, _ = sent(planned(off, present), present)

    assert [path for _, path, _ in asked] == [
        "/v1/bot/create",
        "/v1/bot/update",
        "/v1/bot/heartbeat/configure",
        "/v1/bot/update",
    ]
    same = {"project_id": "prj_1", "bot_id": "new_1"}
    assert [body for method, _, body in asked if method == "PUT"] == [
        same | {"heartbeat": True, "status": False},
        same | {"heartbeat": False, "status": True},
    ]


def test_a_bot_that_rests_is_put_to_rest_again_whatever_happens() -> None:
    resting = on_server(bots=[WATCH | {"heartbeat": 0, "status": 0}])
    off = THE_SAME.replace("heartbeat: true", "status: false")
    plan = planned(off.replace("2.5", "3"), resting)
    server = Recorder([], [], refuses="/v1/bot/heartbeat/configure")

    with pytest.raises(RefusedError):
        applying.carry_out(server, plan, resting, Progress(), lambda: None, project_id="prj_1")

    assert planned(off, resting).changes == ()
    last = {"project_id": "prj_1", "bot_id": "bot_1", "heartbeat": False, "status": False}
    assert server.asked[-1] == ("PUT", "/v1/bot/update", last)


def test_a_bot_that_was_switched_on_by_an_apply_that_was_killed_is_put_right_by_the_next() -> None:
    present = on_server(bots=[WATCH | {"heartbeat": 1, "status": 0}], schedules=[])
    plan = planned(THE_SAME.replace("heartbeat: true", "status: true"), present)

    asked, _ = sent(plan, present)

    assert told(plan) == ["update bot watch", 'create schedule watch: "Look."']
    same = {"project_id": "prj_1", "bot_id": "bot_1"}
    assert [body for method, _, body in asked if method == "PUT"] == [
        same | {"heartbeat": False, "status": True},
        same | {"heartbeat": True, "status": False},
        same | {"heartbeat": False, "status": True},
    ]


def test_a_pause_of_the_server_is_left_alone_and_not_exported() -> None:
    paused = LOOK | {"enabled": 0, "lifesign": LOOK["lifesign"] | {"paused_by": "system", "paused_reason": "errors"}}
    by_hand = LOOK | {"enabled": 0, "lifesign": LOOK["lifesign"] | {"paused_by": "key_1", "paused_reason": "user"}}

    assert planned(THE_SAME, on_server(schedules=[paused])).changes == ()
    assert exported("p", on_server(schedules=[paused]), NOW) == exported("p", on_server(), NOW)
    (change,) = planned(THE_SAME, on_server(schedules=[by_hand])).changes
    assert [str(each) for each in change.differences] == ["enabled: false -> true"]


def test_two_bots_of_one_name_are_an_error() -> None:
    twins = on_server(bots=[WATCH, WATCH | {"id": 8, "uuid": "bot_2"}])

    with pytest.raises(Ambiguous) as refused:
        planned(THE_SAME, twins)

    assert str(refused.value) == "the server has 2 bots named 'watch': bot_1, bot_2; rename or delete all but one"


def test_only_what_an_apply_made_is_taken_away_and_no_schedule_of_others_with_it() -> None:
    bot, look = made_by_apply(WATCH), made_by_apply(LOOK)
    by_hand = LOOK | {"uuid": "sch_2", "prompt": "By hand."}

    alone, kept, others = (
        planned("", on_server(bots=bots, schedules=schedules), prune=True)
        for bots, schedules in (([bot], [look]), ([bot], [look, by_hand]), ([WATCH], [look]))
    )

    assert (told(alone), alone.kept) == ([f"delete {SCHEDULE}", "delete bot watch"], ())
    assert (told(kept), kept.kept) == ([f"delete {SCHEDULE}"], ("watch",))
    assert (told(others), others.kept) == ([f"delete {SCHEDULE}"], ())
    assert planned("", on_server(bots=[bot], schedules=[look])).changes == ()
    asked, _ = sent(alone, on_server(bots=[bot], schedules=[look]))
    assert asked == [
        ("DELETE", "/v1/bot/heartbeat/delete", {"project_id": "prj_1", "bot_id": "bot_1", "heartbeat_id": "sch_1"}),
        ("DELETE", "/v1/bot/delete", {"project_id": "prj_1", "bot_id": "bot_1"}),
    ]


def test_bots_are_asked_for_only_where_a_file_has_some() -> None:
    document = documents.parsed("bots: {b: {}}\n", "f.yaml")
    with_bot, without = wanted_of(document, {}), wanted_of(documents.parsed("", "f.yaml"), {})

    assert applying.kinds_of(with_bot, prune=False) == {"bots"}
    assert applying.kinds_of(without, prune=False) == set()
    assert applying.scopes_to_read(applying.kinds_of(with_bot, prune=False)) == {"bots:read"}
    server = Recorder([WATCH], [])
    applying.read(server, {"bots"}, "prj_1")
    assert server.read == ["/v1/bot/readall"]


@pytest.mark.parametrize(
    ("options", "scopes"),
    [
        ("{tools: [http_get]}", {"bots:write"}),
        ("{tools: [http_get, lifesign_status], acknowledge_trifecta: true}", {"bots:write", "bots:admin"}),
    ],
)
def test_agreeing_to_dangerous_tools_needs_another_scope(options: str, scopes: set[str]) -> None:
    plan = planned(THE_SAME.replace("{tools: [now]}", options), on_server())

    assert applying.scopes_to_write(plan) == scopes


def test_an_export_names_channels_policies_and_subscribers() -> None:
    subscribers: list[Row] = [
        {"id": 3, "external_id": "ann"},
        {"id": 4, "external_id": None},
        {"id": 5, "external_id": "12"},
    ]
    schedules = [LOOK | {"uuid": f"sch_{n}", "member_id": n} for n in (5, 4, 3)]
    web: Row = {"runner": {"kind": "http", "url": "https://x.org/"}}
    bots = [WATCH | {"lifesign": WATCH["lifesign"] | web}, WATCH | {"uuid": "bot_2", "name": "idle", "heartbeat": 0}]
    calls = Bots(Recorder(bots, schedules, subscribers), "prj_1")
    listed = calls.listed()
    present = present_of(
        {"channels": [MAIL], "policies": [PLAIN], "bots": listed, "schedules": calls.schedules(listed)}
    )

    text, variables = exported("p", present, NOW)

    content = documents.parsed(text, "f").content["bots"]
    assert list(content) == ["idle", "watch"]
    assert content["idle"] == {"model": "small", "max_reply_tokens": 500, "lifesign": {"tools": ["now"]}}
    assert variables == ["WATCH_RUNNER_SECRET"]
    runner = {"kind": "http", "url": "https://x.org/", "secret": {"env": "WATCH_RUNNER_SECRET"}}
    assert content["watch"]["lifesign"]["runner"] == runner
    assert [each["member_id"] for each in content["watch"]["schedules"]] == ["ann", 4, 5]
    assert content["watch"]["schedules"][0]["lifesign"] == {
        "limits": {"min_run_credits": 0.5},
        "notify": {"channels": ["mail"]},
        "tools": [],
        "watch": {"policy": "plain", "grace_seconds": 300, "errors": False},
    }
    plan = planned(text, present, WATCH_RUNNER_SECRET=SECRET)
    assert (plan.changes, plan.untouched) == ((), 7)


def test_a_long_prompt_does_not_fill_the_screen() -> None:
    (_, change) = planned(
        f"bots: {{b: {{heartbeat: true, schedules: [{{prompt: {'x' * 500}}}]}}}}", on_server([], [])
    ).changes

    assert change.subject == f'schedule b: "{"x" * 116}...'


# There and back -----------------------------------------------------------------------------------------------------
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
PROMPT = TEXT.map(str.strip).filter(bool)
_INTERVAL: dict[str, st.SearchStrategy[object]] = {"interval_minutes": st.integers(1, 44_640)}
_HOURS: dict[str, st.SearchStrategy[object]] = {
    "active_hours_start": st.just("22:00"),
    "active_hours_end": st.sampled_from(["06:00", "24:00"]),
    "active_days": st.sampled_from([None, "1", "1,3,7"]),
}
TIMING = st.one_of(
    st.fixed_dictionaries({"cron_pattern": st.sampled_from(["0 6 * * *", "@daily"])}),
    st.fixed_dictionaries(_INTERVAL),
    st.fixed_dictionaries(_INTERVAL | _HOURS),
)
_OPTIONS: dict[str, st.SearchStrategy[object]] = {
    "jitter_seconds": st.integers(0, 3600),
    "overlap": st.sampled_from(["skip", "queue_one"]),
    "catch_up_window_seconds": st.sampled_from([None, 60]),
    "session": st.sampled_from(["day", "run"]),
    "limits": st.sampled_from([{}, {"max_tool_calls": 0, "max_credits_per_run": 0.0001}]),
    "notify": st.sampled_from([{}, {"channels": []}, {"mode": "never", "cooldown_seconds": 0, "channels": ["ch_1"]}]),
    "precheck": st.sampled_from([None, {"url": "https://x.org/", "on_error": "error"}]),
    "tools": st.sampled_from([None, [], ["now"]]),
    "retry_lost": st.booleans(),
    "watch": st.sampled_from([None, {"policy": "pol_1", "grace_seconds": 0, "errors": True}]),
}
_OTHERS: dict[str, st.SearchStrategy[object]] = {
    "enabled": st.integers(0, 1),
    "member_id": st.sampled_from([None, 3, 4]),
    "timezone": st.sampled_from(["UTC", "Europe/Berlin"]),
    "credit_budget": st.sampled_from([None, 0, 7, 0.5]),
    "max_consecutive_errors": st.integers(0, 9),
}


@settings(deadline=None, max_examples=40)
@given(PROMPT, TEXT, TIMING, st.fixed_dictionaries(_OTHERS), st.fixed_dictionaries(_OPTIONS))
def test_what_was_exported_is_what_there_is(prompt: str, told: str, when: Row, others: Row, options: Row) -> None:
    untimed = LOOK | {"cron_pattern": None, "prompt": prompt}
    schedule = untimed | when | others | {"lifesign": LOOK["lifesign"] | options}
    calls = Bots(Recorder([WATCH | {"instruction": told}], [schedule], [{"id": 3, "external_id": "ann"}]), "prj_1")
    listed = calls.listed()
    present = present_of(
        {"channels": [MAIL], "policies": [PLAIN], "bots": listed, "schedules": calls.schedules(listed)}
    )

    text, _ = exported("p", present, NOW)

    plan = planned(text, present)
    assert (plan.changes, plan.untouched) == ((), 4)
    wanted = wanted_of(documents.parsed(text, "f"), {}).items
    assert [each.form for each in (*wanted["bots"].values(), *wanted["schedules"].values())] == [
        rows[0].form for rows in (*present.rows["bots"].values(), *present.rows["schedules"].values())
    ]
