"""`lifesign apply` and `lifesign export` against servers of their own: spec "Import, export, apply", acceptance."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lifesign.cli.remote import Api, over_network
from tests.cli.conftest import COMMAND, Server, environment, lifesign_command, running_server, started
from tests.postgres import Cluster

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA=="
PROJECT = """\
project: default
channels:
  ops-mail: {type: email, config: {to: [ops@example.org]}}
  ops-hook: {type: webhook, config: {url: "https://example.org/hook", secret: {env: OPS_HOOK_SECRET}}}
policies:
  standard:
    repeatLastStep: true
    steps: [{channels: [ops-mail]}, {wait: 300, channels: [ops-hook], message: "{{name}} is down"}]
heartbeats:
  nightly-export: {name: Nightly Export, mode: scheduled, schedule: "0 2 * * *", timezone: Europe/Berlin, grace: 600, policy: standard, tags: [db]}
maintenance: []
systems: {}
bots: {}
"""  # noqa: E501 - as the specification writes it
EVERYTHING = """\
channels:
  mail: {type: email, config: {to: ops@example.org}}
  hook: {type: webhook, config: {url: "https://example.org/h", secret: {env: OPS_HOOK_SECRET}, headers: {X-Team: {env: TEAM}}}}
  pager: {type: pagerduty, config: {routingKey: {env: PAGER}, severity: error}}
  slack: {type: slack, config: {webhookUrl: {env: SLACK}}}
  sms: {type: sms, config: {to: "+15550100200"}}
policies:
  night shift: {steps: [{channels: [pager, sms]}, {channels: [slack], wait: 60}]}
heartbeats:
  db: {name: Database, mode: recurring, interval: 60, policy: night shift, channels: [mail], namespace: prod}
  api:
    {mode: recurring, interval: 30, grace: 0, dependsOn: [db], tolerance: {failures: 2, window: 3}, stickyPause: false}
  report: {mode: scheduled, schedule: "Mon..Fri 06:30", timezone: Europe/Berlin, pings: {methods: POST}}
  once: {mode: oneshot, interval: 3600, description: "two\\nlines: # and more"}
maintenance:
- {name: nights, schedule: "0 3 * * *", duration: 3600, timezone: Europe/Berlin, heartbeats: [db, api]}
- {name: move, startsAt: "2099-03-08T20:00:00Z", endsAt: "2099-03-08T23:00:00Z", all: true}
systems:
  db1: {type: server, fqdn: db1.example.org, tags: [prod, db], interval: 60, policy: night shift}
bots:
  night watch:
    instruction: Be brief.
    model: small
    heartbeat: true
    lifesign: {runner: {kind: http, url: "https://example.org/run", secret: {env: OPS_HOOK_SECRET}}, tools: [now]}
    schedules:
    - prompt: Look around.
      enabled: true
      cron_pattern: "0 6 1 1 *"
      timezone: Europe/Berlin
      lifesign: {notify: {mode: errors, channels: [mail]}, watch: {policy: night shift}, limits: {min_run_credits: 0.5}}
    - {prompt: Sum up., member_id: ops, interval_minutes: 60, active_hours_start: "08:00", active_hours_end: "18:00"}
  resting: {schedules: [{prompt: Not yet., enabled: true}]}
"""  # noqa: E501 - one line each
SECRETS = {
    "OPS_HOOK_SECRET": SECRET,
    "TEAM": "blue",
    "PAGER": "R0123456789ABCDEFGHIJKLMNOPQRSTU",
    "SLACK": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX",
}


class Declared:
    """A server, and a project in a file."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.file = directory / "lifesign.yaml"
        self.secrets = dict(SECRETS)

    def apply(self, text: str | None = None, *options: str) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        if text is not None:
            self.file.write_text(text)
        ran = lifesign_command("apply", "-f", str(self.file), *options, env=self.server.env | self.secrets)
        return ran.code, ran.text, ran.err

    def export(self) -> str:
        ran = self.server.command("export")
        assert ran.code == 0, ran.err
        return ran.text

    def has(self, kind: str) -> list[Any]:
        listed = self.server.told(kind, "list")
        return list((listed.get("data") or listed)[kind])


@contextmanager
def a_server(directory: Path, cluster: Cluster | None) -> Iterator[Server]:
    if cluster is None:
        with running_server(directory / "data") as server:
            yield server
        return
    name = f"declared_{os.urandom(6).hex()}"
    cluster.create_database(name)
    try:
        with running_server(directory / "data", LIFESIGN_DATABASE_URL=cluster.url(name)) as server:
            yield server
    finally:
        cluster.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest) -> Cluster | None:
    return None if request.param == "sqlite" else request.getfixturevalue("cluster")


@pytest.fixture
def declared(stores: Cluster | None, tmp_path: Path) -> Iterator[Declared]:
    with a_server(tmp_path, stores) as server:
        yield Declared(server, tmp_path)


@pytest.fixture
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without what other tests made: only names that stand once can be exported."""
    with a_server(tmp_path_factory.mktemp("lone"), None) as server:
        yield server


def test_the_first_apply_makes_everything_and_the_second_has_nothing_to_do(declared: Declared) -> None:
    first = declared.apply(PROJECT, "--yes")
    second = declared.apply(None, "--yes")

    assert first == (
        0,
        "+ channel ops-mail\n+ channel ops-hook\n+ policy standard\n+ heartbeat nightly-export\n4 created\n",
        "",
    )
    assert second == (0, "nothing to do: 4 as the file says\n", "")
    (policy,) = declared.has("policies")
    (heartbeat,) = declared.has("heartbeats")
    assert (heartbeat["slug"], heartbeat["policy"], heartbeat["origin"]) == ("nightly-export", policy["id"], "apply")


def test_a_dry_run_shows_what_differs_and_changes_nothing(declared: Declared) -> None:
    declared.apply(PROJECT, "--yes")
    before = declared.has("heartbeats")

    ran = declared.apply(PROJECT.replace("grace: 600", "grace: 900"), "--dry-run")

    assert ran == (5, "~ heartbeat nightly-export\n    grace: 600 -> 900\n", "")
    assert declared.has("heartbeats") == before


def test_pruning_takes_away_what_an_apply_made_and_nothing_else(declared: Declared) -> None:
    declared.apply(PROJECT, "--yes")
    mail = declared.has("channels")[0]["id"]
    declared.server.told("policies", "create", "by hand", "--step", mail)
    declared.server.told("heartbeats", "create", "By Hand", "--every", "1h")

    kept = declared.apply("project: default\n", "--yes")
    pruned = declared.apply(None, "--prune", "--yes")

    assert kept == (0, "nothing to do: 0 as the file says\n", "")
    # The channel is in use by what somebody else made: told, with what was done before.
    assert pruned[:2] == (
        4,
        "- heartbeat nightly-export\n- policy standard\n- channel ops-hook\n- channel ops-mail\n",
    )
    assert "channel ops-mail: Channel is in use" in pruned[2]
    assert "3 of 4 changes were made; apply again to go on" in pruned[2]
    assert [each["name"] for each in declared.has("policies")] == ["by hand"]
    assert [each["slug"] for each in declared.has("heartbeats")] == ["by-hand"]
    declared.server.command("policies", "delete", declared.has("policies")[0]["id"])
    assert declared.apply(None, "--prune", "--yes")[0] == 0
    assert declared.has("channels") == []


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        ("[ops-hook]", "[ops-sms]", ":8: policies.standard.steps[1].channels[0]: no channel is named 'ops-sms'"),
        ("  standard:\n", "\tstandard:\n", ":6: a tab cannot indent; use blanks"),
        ("maintenance: []", "project: other", ":11: project: stands twice, first in line 1"),
        ("mode: scheduled", "mode: weekly", ":10: heartbeats.nightly-export.mode: must be 'recurring', "),
        ("OPS_HOOK_SECRET", "MISSING", ":4: channels.ops-hook.config.secret: the environment variable MISSING is not"),
        ("project: default", "project: other", ":1: project: is 'other', but the key belongs to 'default'"),
    ],
)
def test_a_bad_file_is_told_by_line_and_nothing_is_sent(
    server: Server, tmp_path: Path, old: str, new: str, flaw: str
) -> None:
    declared = Declared(server, tmp_path)
    before = declared.has("channels"), declared.has("policies"), declared.has("heartbeats")

    code, out, err = declared.apply(PROJECT.replace(old, new), "--yes")

    assert (code, out) == (2, "")
    assert err.startswith(f"lifesign: {declared.file}{flaw}")
    assert (declared.has("channels"), declared.has("policies"), declared.has("heartbeats")) == before


def test_an_export_goes_into_an_empty_server_and_comes_out_the_same(
    declared: Declared, stores: Cluster | None, tmp_path: Path
) -> None:
    assert declared.apply(EVERYTHING, "--yes")[0] == 0
    text = declared.export()
    secrets = {
        "HOOK_SECRET": SECRETS["OPS_HOOK_SECRET"],
        "HOOK_HEADER_X_TEAM": SECRETS["TEAM"],
        "NIGHT_WATCH_RUNNER_SECRET": SECRETS["OPS_HOOK_SECRET"],
        "PAGER_ROUTING_KEY": SECRETS["PAGER"],
        "SLACK_WEBHOOK_URL": SECRETS["SLACK"],
    }
    declared.secrets = secrets

    again = declared.apply(text, "--yes")

    assert again[:2] == (0, "nothing to do: 18 as the file says\n")
    assert [value for value in SECRETS.values() if value in text] == []
    (tmp_path / "second").mkdir()
    with a_server(tmp_path / "second", stores) as other:
        second = Declared(other, tmp_path / "second")
        second.secrets = secrets
        assert second.apply(text, "--yes")[0] == 0
        assert second.export() == text


def test_a_secret_that_answers_cannot_tell_apart_is_changed(declared: Declared) -> None:
    declared.apply(EVERYTHING, "--yes")
    declared.secrets["TEAM"] = "green"

    code, out, _ = declared.apply(EVERYTHING, "--yes")

    assert (code, out) == (0, "~ channel hook\n    config: a secret -> another secret\n1 changed\n")
    assert declared.apply(EVERYTHING, "--yes")[1] == "nothing to do: 18 as the file says\n"


def test_every_kind_of_change_is_made(declared: Declared) -> None:
    declared.apply(EVERYTHING, "--yes")
    changed = EVERYTHING
    for old, new in (
        ("policy: night shift, channels: [mail], namespace: prod", "tags: [db]"),
        ("dependsOn: [db], tolerance: {failures: 2, window: 3}, stickyPause: false", "description: new"),
        ('mode: scheduled, schedule: "Mon..Fri 06:30"', "mode: recurring, interval: 90"),
        ('type: sms, config: {to: "+15550100200"}', "type: email, config: {to: sms@example.org}"),
        ("wait: 60", "wait: 90"),
        (
            'schedule: "0 3 * * *", duration: 3600, timezone: Europe/Berlin, heartbeats: [db, api]',
            'startsAt: "2099-01-01T00:00:00Z", endsAt: "2099-01-02T00:00:00+01:00", tags: [db]',
        ),
        ("tags: [prod, db], interval: 60, policy: night shift", "notes: moved"),
        ("    instruction: Be brief.\n", ""),
        ("tools: [now]", "telemetry_content: true"),
        ('      cron_pattern: "0 6 1 1 *"\n      timezone: Europe/Berlin\n', "      interval_minutes: 90\n"),
        (
            "mode: errors, channels: [mail]}, watch: {policy: night shift}, limits: {min_run_credits: 0.5}",
            "channels: []}",
        ),
        ('interval_minutes: 60, active_hours_start: "08:00", active_hours_end: "18:00"', "credit_budget: 2.5"),
    ):
        assert old in changed
        changed = changed.replace(old, new)

    code, out, err = declared.apply(changed, "--yes")

    assert (code, err) == (0, "")
    assert out.endswith("10 changed\n")
    assert declared.apply(None, "--yes")[1] == "nothing to do: 18 as the file says\n"
    shown = {each["slug"]: each for each in declared.has("heartbeats") if "managedBy" not in each}
    assert (shown["report"]["mode"], shown["report"]["interval"]) == ("recurring", 90)
    assert {"policy", "channels", "namespace"} & set(shown["db"]) == set()


def test_dependencies_may_change_places(declared: Declared) -> None:
    beat = "{mode: recurring, interval: 60%s}"
    declared.apply(f"heartbeats:\n  a: {beat % ', dependsOn: [b]'}\n  b: {beat % ''}\n", "--yes")

    swapped = declared.apply(f"heartbeats:\n  b: {beat % ', dependsOn: [a]'}\n  a: {beat % ''}\n", "--yes")

    assert swapped[0] == 0, swapped[2]
    shown = {each["slug"]: each for each in declared.has("heartbeats")}
    assert shown["b"]["dependsOn"] == [shown["a"]["id"]]
    assert "dependsOn" not in shown["a"]


def test_what_the_server_made_up_is_shown_once(declared: Declared) -> None:
    text = "channels:\n  h: {type: webhook, config: {url: 'https://example.org/'}}\nsystems:\n  db1: {}\n"
    text += "bots:\n  b: {lifesign: {runner: {kind: http, url: 'https://example.org/'}}}\n"

    code, out, _ = declared.apply(text, "--yes")

    assert code == 0
    lines = out.splitlines()
    assert lines[:4] == ["+ channel h", "+ system db1", "+ bot b", "channel h: shown this once"]
    assert lines[4].startswith("    secret: whsec_")
    assert lines[5] == "system db1: shown this once"
    assert [line.split(":")[0].strip() for line in lines[6:9]] == ["id", "key", "secret"]
    assert lines[9] == "bot b: shown this once"
    assert lines[10].startswith("    secret: whsec_")
    assert declared.apply(text, "--yes")[1] == "nothing to do: 3 as the file says\n"


def test_the_outcome_as_json(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    text = "heartbeats:\n  as-json: {mode: recurring, interval: 60}\n"
    declared.file.write_text(text)
    planned = server.command("apply", "-f", str(declared.file), "--dry-run", "--json")

    done = server.told("apply", "-f", str(declared.file), "--yes")

    plan = [{"action": "create", "kind": "heartbeats", "name": "as-json", "fields": []}]
    assert (planned.code, planned.json) == (5, {"plan": plan, "untouched": 0, "done": 0, "secrets": []})
    assert done == {"plan": plan, "untouched": 0, "done": 1, "secrets": []}


def test_nothing_is_applied_without_a_word_where_nobody_can_be_asked(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)

    code, out, err = declared.apply("heartbeats:\n  asked: {mode: recurring, interval: 60}\n")

    assert (code, out) == (2, "+ heartbeat asked\n")
    assert "--yes" in err
    assert server.command("heartbeats", "get", "asked").code == 4


def new_key(server: Server, *scopes: str) -> Any:
    """A key with these scopes only, made by the operator."""
    options = [word for scope in scopes for word in ("--scope", scope)]
    return server.told("keys", "create", "--name", "narrow", "--data-dir", str(server.data_dir), *options)


def api(server: Server) -> Api:
    return Api(over_network(server.url, server.key))


def test_a_missing_scope_is_told_before_the_first_write(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    text = """\
channels:
  scoped: {type: email, config: {to: a@example.org}}
heartbeats:
  scoped: {mode: oneshot, interval: 5, channels: [scoped]}
"""
    declared.file.write_text(text)
    narrow = new_key(server, "channels:write", "heartbeats:read")
    wider = new_key(server, "channels:write", "policies:read", "heartbeats:read")

    first, second = (
        lifesign_command("apply", "-f", str(declared.file), "--yes", env=server.env | {"LIFESIGN_KEY": each["token"]})
        for each in (narrow, wider)
    )

    assert (first.code, first.err) == (4, "lifesign: the key lacks policies:read; nothing was changed\n")
    assert (second.code, second.err) == (4, "lifesign: the key lacks heartbeats:write; nothing was changed\n")
    # Nothing is asked for that the file has no use for.
    declared.file.write_text("systems:\n  scoped: {}\n")
    just = new_key(server, "systems:write", "policies:read")["token"]
    third = lifesign_command("apply", "-f", str(declared.file), "--dry-run", env=server.env | {"LIFESIGN_KEY": just})
    assert (third.code, third.text) == (5, "+ system scoped\n")
    assert "scoped" not in [each["name"] for each in declared.has("channels")]


def test_bots_are_pruned_and_looked_at_with_their_scope_only(lone: Server, tmp_path: Path) -> None:
    declared = Declared(lone, tmp_path)
    schedules = "heartbeat: true, schedules: [{prompt: One.}, {prompt: Two.}]"
    assert declared.apply(f"bots:\n  ours: {{{schedules}}}\n  theirs: {{{schedules}}}\n", "--yes")[0] == 0
    (theirs,) = [each for each in declared.has("bots") if each["name"] == "theirs"]
    lone.told("bots", "schedule", "create", theirs["uuid"], "By hand.")
    blind = lone.env | {"LIFESIGN_KEY": new_key(lone, *(f"{each}:write" for each in EXPORTED))["token"]}

    exported = lifesign_command("export", env=blind)
    refused = lifesign_command("apply", "-f", str(declared.file), "--dry-run", env=blind)
    dropped = declared.apply(f"bots:\n  ours: {{{schedules.replace(', {prompt: Two.}', '')}}}\n", "--prune", "--yes")

    assert (exported.code, exported.text.endswith("bots: {}\n")) == (0, True)
    assert exported.err == "lifesign: bots are not in the file: the key lacks bots:read\n"
    assert (refused.code, refused.err) == (4, "lifesign: the key lacks bots:read; nothing was changed\n")
    assert dropped == (
        0,
        '- schedule ours: "Two."\n- schedule theirs: "One."\n- schedule theirs: "Two."\n3 deleted\n',
        "lifesign: warning: bot theirs stays: schedules that no apply made would go with it\n",
    )
    assert "theirs:\n    heartbeat: true\n    schedules:\n    - prompt: By hand.\n" in declared.export()


EXPORTED = ("channels", "policies", "heartbeats", "systems")


def test_two_of_one_name_on_the_server_are_listed(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    twins = [server.told("channels", "create", "email", "--name", "twin", "--to", "a@example.org") for _ in range(2)]

    code, _, err = declared.apply("channels:\n  twin: {type: email, config: {to: a@example.org}}\n", "--yes")

    assert code == 2
    ids = ", ".join(each["id"] for each in twins)
    assert err == f"lifesign: the server has 2 channels named 'twin': {ids}; rename or delete all but one\n"
    for each in twins:
        server.command("channels", "delete", each["id"])


def test_nobody_at_the_address_is_told(tmp_path: Path, closed_port: int) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("heartbeats: {}\n")

    ran = lifesign_command("apply", "-f", str(file), "--url", f"http://127.0.0.1:{closed_port}", "--key", "lsk_x")

    assert ran.code == 3


def test_a_server_killed_half_way_is_made_whole_by_the_next_apply(stores: Cluster | None, tmp_path: Path) -> None:
    beats = "".join(f"  job-{n}: {{mode: recurring, interval: 60, policy: standard}}\n" for n in range(150))
    text = PROJECT.replace("maintenance: []\n", beats + "maintenance: []\n")
    with two_databases(stores) as (used, clean):
        _kill_half_way(text, tmp_path, used, clean)


@contextmanager
def two_databases(cluster: Cluster | None) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """The settings of servers on two databases that are there until the block ends."""
    key = {"LIFESIGN_ADMIN_KEY": "a-key-of-the-operator"}
    if cluster is None:
        yield key, key
        return
    names = [f"declared_{os.urandom(6).hex()}" for _ in range(2)]
    for name in names:
        cluster.create_database(name)
    try:
        one, other = (key | {"LIFESIGN_DATABASE_URL": cluster.url(name)} for name in names)
        yield one, other
    finally:
        for name in names:
            cluster.drop_database(name)


def _kill_half_way(text: str, tmp_path: Path, used: dict[str, str], clean_one: dict[str, str]) -> None:
    with running_server(tmp_path / "data", **used) as server:
        declared = Declared(server, tmp_path)
        declared.file.write_text(text)
        killed = threading.Thread(target=_kill_when_half_done, args=(declared,))
        killed.start()
        code, _, err = declared.apply(None, "--yes")
        killed.join()
    assert code == 3
    assert "changes were made; apply again to go on" in err

    with running_server(tmp_path / "data", **used) as server:
        declared = Declared(server, tmp_path)
        before = len(declared.has("heartbeats"))
        assert 0 < before < 151
        assert declared.apply(None, "--yes")[0] == 0
        again = declared.export()
    with running_server(tmp_path / "clean", **clean_one) as server:
        clean = Declared(server, tmp_path)
        assert clean.apply(None, "--yes")[0] == 0
        assert clean.export() == again


def _kill_when_half_done(declared: Declared) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if len(declared.has("heartbeats")) > 20:
            os.kill(declared.server.pid, signal.SIGKILL)
            return


def test_a_command_killed_half_way_is_made_whole_by_the_next(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    declared.file.write_text(
        "heartbeats:\n" + "".join(f"  cut-{n}: {{mode: recurring, interval: 60}}\n" for n in range(200))
    )
    before = len(declared.has("heartbeats"))
    process = subprocess.Popen(
        [*COMMAND, "apply", "-f", str(declared.file), "--yes"],
        env=environment(**server.env),
        stdout=subprocess.DEVNULL,
    )
    while len(declared.has("heartbeats")) < before + 10:
        assert process.poll() is None
    process.kill()
    process.wait()
    made = len(declared.has("heartbeats")) - before

    code, out, _ = declared.apply(None, "--yes")

    assert made < 200
    assert (code, out.splitlines()[-1]) == (0, f"{200 - made} created")
    assert {f"cut-{n}" for n in range(200)} <= {each["slug"] for each in declared.has("heartbeats")}


def test_an_export_into_a_file_is_whole_or_not_there(lone: Server, tmp_path: Path) -> None:
    out = tmp_path / "project.yaml"

    assert lone.command("export", "--out", str(out)).code == 0
    refused = lone.command("export", "--out", str(tmp_path / "none" / "x.yaml"))

    assert out.read_text() == lone.command("export").text
    assert refused.code == 1
    assert "cannot write" in refused.err
    assert [each.name for each in tmp_path.iterdir()] == ["project.yaml"]


def test_what_a_file_cannot_hold_may_be_referred_to(declared: Declared) -> None:
    declared.apply("systems:\n  db1: {interval: 60}\n", "--yes")
    (under,) = [each["slug"] for each in declared.has("heartbeats")]
    declared.server.told("heartbeats", "create", "No Slug", "--every", "1h")
    (nameless,) = [each["id"] for each in declared.has("heartbeats") if each["name"] == "No Slug"]
    api(declared.server).patch(f"/v1/heartbeats/{nameless}", {"slug": None})
    api(declared.server).post(
        "/v1/heartbeats",
        {"name": "app", "slug": "app", "mode": "recurring", "interval": 60, "dependsOn": [under, nameless]},
    )

    ran = declared.server.command("export")

    assert f"    dependsOn:\n    - {under}\n    - {nameless}\n" in ran.text
    assert ran.err == f"lifesign: without a slug, and so not in the file: {nameless}\n"
    assert declared.apply(ran.text, "--yes") == (0, "nothing to do: 2 as the file says\n", "")
    changed = declared.apply(ran.text.replace(f"    - {nameless}\n", ""), "--yes")
    assert (changed[0], changed[2]) == (0, "")
    assert declared.apply(None, "--yes")[1] == "nothing to do: 2 as the file says\n"


def test_credentials_are_shown_before_the_next_thing_is_made(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    count = 100
    declared.file.write_text("systems:\n" + "".join(f"  shown-{n}: {{}}\n" for n in range(count)))

    with started(["apply", "-f", str(declared.file), "--yes"], server.env) as process:
        assert process.stdout is not None
        told = next(line for line in process.stdout if line.startswith(b"    secret: "))
        process.kill()

    assert told.startswith(b"    secret: lss_")
    made = [each for each in declared.has("systems") if each["name"].startswith("shown-")]
    assert 0 < len(made) < count


def test_a_key_that_may_not_compare_secrets_is_told_so(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    text = (
        "channels:\n  unseen: {type: webhook, config: {url: 'https://example.org/', secret: {env: OPS_HOOK_SECRET}}}\n"
    )
    assert declared.apply(text, "--yes")[0] == 0
    reader = new_key(server, "channels:read")["token"]

    ran = lifesign_command(
        "apply", "-f", str(declared.file), "--dry-run", env=server.env | declared.secrets | {"LIFESIGN_KEY": reader}
    )

    assert (ran.code, ran.text) == (0, "nothing to do: 1 as the file says\n")
    assert ran.err == (
        "lifesign: warning: channel unseen: whether its secrets are others was not looked at: "
        "the key lacks channels:write\n"
    )


def test_a_circle_that_the_server_alone_can_see_is_its_refusal(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    # The way back is through a heartbeat that the file does not name, so that the server alone sees the circle.
    text = "heartbeats:\n  ring-a: {mode: recurring, interval: 60}\n  ring-b: {mode: recurring, interval: 60}\n"
    assert declared.apply(text, "--yes")[0] == 0
    by_hand = {"name": "ring-c", "slug": "ring-c", "mode": "recurring", "interval": 60, "dependsOn": ["ring-a"]}
    api(server).post("/v1/heartbeats", by_hand)

    code, _, err = declared.apply(
        text.replace("60}\n  ring-b", "60, dependsOn: [ring-c]}\n  ring-b").replace("ring-b: {", "ring-b: {grace: 5, "),
        "--yes",
    )

    assert code == 4
    assert err.startswith("lifesign: heartbeat ring-a: Invalid request: dependsOn[0] depends on this heartbeat already")
    assert err.endswith("0 of 2 changes were made; apply again to go on\n")


def test_an_export_is_utf_8_whatever_the_locale(lone: Server, tmp_path: Path) -> None:
    api(lone).post("/v1/heartbeats", {"name": "Größe 電", "slug": "groesse", "mode": "recurring", "interval": 60})
    out = tmp_path / "project.yaml"
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    ran = lifesign_command("export", "--out", str(out), env=lone.env | plain)

    assert ran.code == 0, ran.err
    assert "    name: Größe 電\n" in out.read_text(encoding="utf-8")


def test_all_calls_of_an_apply_go_over_one_connection(server: Server, tmp_path: Path) -> None:
    declared = Declared(server, tmp_path)
    declared.file.write_text(
        "heartbeats:\n" + "".join(f"  one-{n}: {{mode: oneshot, interval: 60}}\n" for n in range(9))
    )
    with counting_road(server) as (url, opened):
        ran = lifesign_command("apply", "-f", str(declared.file), "--yes", env=server.env | {"LIFESIGN_URL": url})

    assert (ran.code, ran.text.splitlines()[-1]) == (0, "9 created")
    assert len(opened) == 1


@contextmanager
def counting_road(server: Server) -> Iterator[tuple[str, list[socket.socket]]]:
    """An address that leads to the server, and the connections that were made to it."""
    opened: list[socket.socket] = []
    to = ("127.0.0.1", int(server.url.rpartition(":")[2]))

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                sink.sendall(content)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def welcome() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(to)
                opened.append(near)
                ends.append(far)
                for pair in ((near, far), (far, near)):
                    carriers.append(threading.Thread(target=carry, args=pair))
                    carriers[-1].start()

    ends: list[socket.socket] = []
    carriers: list[threading.Thread] = []
    listener = socket.create_server(("127.0.0.1", 0))
    welcoming = threading.Thread(target=welcome)
    welcoming.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", opened
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        welcoming.join()
        for each in carriers:
            each.join()
        for end in [*opened, *ends]:
            end.close()
