"""The documentation is true: the reference lists what the code has and nothing else, and the examples work.

A page's ```sh blocks that use `curl`, `openssl` or `.venv/bin/lifesign` are run, in order, in one shell, against a
server of the page's own. A comment before a block says otherwise: `<!-- run -->`, `<!-- run in the background -->` or
`<!-- not run: why -->`.
"""

import ast
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, cast

import pytest
from pydantic_core import PydanticUndefined

from lifesign.auth.rules import INCLUDES, KNOWN_SCOPES
from lifesign.channels import pagerduty, rules, slack, webhook
from lifesign.channels.sender import HttpRequest
from lifesign.engine import metrics
from lifesign.envelopes.bots import is_bots
from lifesign.envelopes.telemetry import is_telemetry
from lifesign.envelopes.vitals import is_vitals
from lifesign.events.rules import EVENT_TYPES
from lifesign.settings import Settings
from tests.channels import samples
from tests.faults.server import Server, serving
from tests.harness import ADMIN_KEY, Json, Lifesign

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
_VARIABLE = re.compile(r"LIFESIGN_[A-Z_]+[A-Z]\b")
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def _rows(page: str, pattern: str) -> list[list[str]]:
    """The cells of the table rows of a reference page whose first cell matches."""
    found = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in (REFERENCE / page).read_text().splitlines()
        if line.startswith("| `")
    ]
    return [cells for cells in found if re.fullmatch(pattern, cells[0])]


def _words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# The reference ------------------------------------------------------------------------------------------------------
def test_the_reference_lists_every_setting_with_its_default() -> None:
    described = {cells[0]: cells[1] for cells in _rows("settings.md", r"`LIFESIGN_\w+`")}

    assert described == {
        f"`LIFESIGN_{name.upper()}`": _default(name, field.default) for name, field in Settings.model_fields.items()
    }


def _default(name: str, default: object) -> str:
    if default is PydanticUndefined:
        assert name == "smtp_from"
        return "`lifesign@` + host name"
    match default:
        case None:
            return "unset"
        case "":
            return "empty"
        case bool():
            return f"`{str(default).lower()}`"
        case _:
            return f"`{default}`"


def test_no_page_names_a_variable_that_is_not_read() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    known = {f"LIFESIGN_{name.upper()}" for name in Settings.model_fields} | set(_VARIABLE.findall(sources))
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    named = {(page.name, name) for page in pages for name in _VARIABLE.findall(page.read_text())}

    assert named
    assert {(page, name) for page, name in named if name not in known} == set()


def test_the_reference_lists_every_event_and_no_other() -> None:
    assert sorted(cells[0].strip("`") for cells in _rows("events.md", r"`\w+`")) == sorted(EVENT_TYPES)


def test_the_reference_lists_every_metric_with_its_kind_and_labels_and_no_other() -> None:
    described = {cells[0].strip("`"): (cells[1], _words(cells[2])) for cells in _rows("metrics.md", r"`lifesign_\w+`")}
    known = {}
    for collector in _collectors():
        family = next(iter(collector.describe()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        known[name] = (family.type, list(collector._labelnames))  # noqa: SLF001 - the library shows labels nowhere else

    assert described == known


def _collectors() -> list[Any]:  # Any: metrics of several classes, with the same methods
    return [each for each in vars(metrics).values() if hasattr(each, "describe") and hasattr(each, "_labelnames")]


def test_the_reference_lists_every_scope_with_what_it_includes() -> None:
    described = {cells[0].strip("`"): set(_words(cells[2])) for cells in _rows("scopes.md", r"`[^`]+`")}

    assert described == {scope: set(INCLUDES[scope]) for scope in KNOWN_SCOPES}


def test_the_reference_lists_every_log_event_with_its_level_and_fields_and_no_other() -> None:
    described = {
        cells[0].strip("`"): (cells[1], set(_words(cells[2]))) for cells in _rows("log-events.md", r"`\w+\.\w+`")
    }
    logged = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if _is_log_call(node):
                method = cast("ast.Attribute", node.func).attr
                fields = {keyword.arg for keyword in node.keywords} - {"exc_info"}
                has_traceback = method == "exception" or "exc_info" in {keyword.arg for keyword in node.keywords}
                level = "error" if method == "exception" else method
                name = cast("ast.Constant", node.args[0]).value
                logged[name] = (level, fields | ({"exception"} if has_traceback else set()))

    assert described == logged


def _is_log_call(node: ast.AST) -> TypeGuard[ast.Call]:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"log", "logger"}
    )


async def test_the_reference_lists_every_operation_with_its_scope_and_answer(lifesign: Lifesign) -> None:
    described = {
        cells[0].strip("`"): [cell.strip("`") for cell in cells[1:]]
        for cells in _rows("http-api.md", r"`[A-Z]+ /(v1|api)/.*`")
    }
    paths = (await lifesign.ask("GET", "/openapi.json"))["paths"]
    narrow = {
        scope: await lifesign.ask("POST", "/v1/keys", {"name": scope, "scopes": [scope]}, expect=201)
        for scope in ("checkins:write", "keys:read")
    }
    known = {}
    for path, item in paths.items():
        for verb, operation in item.items():
            if path.startswith("/api/") and not is_vitals(path):
                # Their refusals do not name what is missing; tests/systems has who may do what.
                scope = "systems:read" if verb == "get" else "systems:write"
                scopes = ["Basic"] if operation["security"] == [{"BasicAuth": []}] else [scope]
                known[f"{verb.upper()} {path}"] = [operation["operationId"], *scopes, min(operation["responses"])]
            if path.startswith("/v1") and not is_telemetry(path) and not is_bots(path):
                reports = {"checkin", "startRun", "reportProgress", "finishRun"}
                scope = "keys:read" if operation["operationId"] in reports else "checkins:write"
                if "403" not in operation["responses"]:
                    known[f"{verb.upper()} {path}"] = [operation["operationId"], "any", min(operation["responses"])]
                    continue
                answer = await lifesign.client(narrow[scope]["token"]).request(verb.upper(), path)
                answered = min(operation["responses"])
                known[f"{verb.upper()} {path}"] = [
                    operation["operationId"],
                    *answer.json()["error"]["details"]["scopes"],
                    answered,
                ]

    assert described == known


async def test_the_reference_lists_every_operation_of_telemetry_with_its_key_and_answer(lifesign: Lifesign) -> None:
    described = {
        cells[0].strip("`"): [cell.strip("`") for cell in cells[1:]]
        for page in ("telemetry.md", "diagnosis.md")
        for cells in _rows(page, r"`[A-Z]+ /v1/.*`")
    }
    narrow = await lifesign.ask("POST", "/v1/keys", {"name": "jobs", "scopes": ["checkins:write"]}, expect=201)
    known = {}
    for path, item in (await lifesign.ask("GET", "/openapi.json"))["paths"].items():
        for verb, operation in item.items() if is_telemetry(path) else ():
            asked = path.replace("{packet_id}", "pkt_0")
            told = (await lifesign.client(narrow["token"]).request(verb.upper(), asked)).json()
            kind = re.search(r"needs an? (\w+) key", told.get("message", ""))
            best = max(status for status in operation["responses"] if status < "300")
            known[f"{verb.upper()} {path}"] = [operation["operationId"], "none" if kind is None else kind[1], best]

    assert len(known) >= 4
    assert described == known


async def test_the_reference_lists_every_operation_of_vitals_with_its_key_and_answer(lifesign: Lifesign) -> None:
    described = {
        cells[0].strip("`"): [cell.strip("`") for cell in cells[1:]] for cells in _rows("usage.md", r"`[A-Z]+ /api/.*`")
    }
    known = {}
    for path, item in (await lifesign.ask("GET", "/openapi.json"))["paths"].items():
        for verb, operation in item.items() if is_vitals(path) else ():
            answer = await lifesign.client(None).request(verb.upper(), path)
            key = "needed" if answer.status_code == 401 else "none"
            known[f"{verb.upper()} {path}"] = [operation["operationId"], key, min(operation["responses"])]

    assert len(known) >= 7
    assert described == known


async def test_the_reference_lists_every_operation_of_bots_with_its_scope_and_answer(lifesign: Lifesign) -> None:
    described = {
        cells[0].strip("`"): [cell.strip("`") for cell in cells[1:]] for cells in _rows("bots.md", r"`[A-Z]+ /v1/.*`")
    }
    narrow = await lifesign.ask("POST", "/v1/keys", {"name": "jobs", "scopes": ["checkins:write"]}, expect=201)
    known = {}
    for path, item in (await lifesign.ask("GET", "/openapi.json"))["paths"].items():
        for verb, operation in item.items() if is_bots(path) else ():
            client = lifesign.client(narrow["token"])
            told = (await client.request(verb.upper(), path, params={"project_id": "default"}, json={})).json()
            scope = re.search(r"lacks the scope (\S+)", told["message"])
            answered = min(operation["responses"])
            known[f"{verb.upper()} {path}"] = [
                operation["operationId"],
                "none" if scope is None else scope[1],
                answered,
            ]

    assert len(known) >= 17
    assert described == known


async def test_events_hold_nothing_that_the_reference_does_not_name(lifesign: Lifesign) -> None:
    described = {cells[0].strip("`"): set(_words(cells[2])) for cells in _rows("events.md", r"`\w+`")}
    bad = await lifesign.webhook("http://127.0.0.1:1/")
    policy = await lifesign.policy({"channels": [bad["id"]]})
    watched = (await lifesign.heartbeat("Watched", policy=policy["id"], interval=60, grace=0))["id"]
    await lifesign.ask("PATCH", f"/v1/heartbeats/{watched}", {"grace": 1})
    await lifesign.check_in(watched, metadata={"rows": 1})
    await lifesign.advance(120)
    await lifesign.check_in(watched)
    await lifesign.check_in(watched, healthy=False)
    await lifesign.ask("POST", f"/v1/heartbeats/{watched}/ack", {"message": "on it"})
    await lifesign.ask("POST", f"/v1/heartbeats/{watched}/pause")
    await lifesign.ask("POST", f"/v1/heartbeats/{watched}/resume")
    await _run_and_rest(lifesign, watched)
    await _pinged(lifesign, watched)
    await lifesign.ask("DELETE", f"/v1/channels/{bad['id']}?force=true", expect=204)
    await lifesign.ask("DELETE", f"/v1/policies/{policy['id']}?force=true", expect=204)
    await lifesign.check_in(watched, healthy=False)

    seen = {event["type"]: set(event["metadata"]) for event in await lifesign.events(watched)}

    # The others need a provider that accepts, one that is slow, a server that was away or damaged, or much ado.
    assert set(EVENT_TYPES) - set(seen) == {
        "notify_sent",
        "failover",
        "blind",
        "repaired",
        "flapping",
        "flapping_ended",
    }
    assert {kind: members - described[kind] for kind, members in seen.items() if members - described[kind]} == {}


async def _pinged(lifesign: Lifesign, ref: str) -> None:
    """Everything that pings write into a history."""
    ping_url = (await lifesign.get(ref))["pingUrl"]
    uuid = ping_url.rpartition("/")[2]
    key = {"X-Api-Key": ADMIN_KEY}
    await lifesign.http.post(f"{ping_url}/start")
    for path in ("/log", "/7", ""):
        await lifesign.http.post(ping_url + path)
    await lifesign.http.post(f"/api/v3/checks/{uuid}", json={"methods": "POST"}, headers=key)
    await lifesign.http.get(ping_url)
    await lifesign.http.post(f"/api/v3/checks/{uuid}", json={"methods": ""}, headers=key)


async def _run_and_rest(lifesign: Lifesign, ref: str) -> None:
    """Everything that runs, snoozes, tolerance and dependencies write into a history."""
    path = f"/v1/heartbeats/{ref}"
    await lifesign.heartbeat("Router")
    await lifesign.ask(
        "PATCH", path, {"tolerance": {"failures": 9, "window": 9}, "dependsOn": ["router"], "interval": 3600}
    )
    await lifesign.ask("DELETE", "/v1/heartbeats/router", expect=204)
    await lifesign.ask("POST", f"{path}/snooze", {"seconds": 60, "reason": "r"})
    await lifesign.ask("DELETE", f"{path}/snooze", expect=204)
    for run, body in (("a", {"lease": 60}), ("b", {"maxDuration": 60}), ("c", {}), ("d", {})):
        await lifesign.ask("POST", f"{path}/runs", {"runId": run} | body, expect=201)
    await lifesign.advance(60)
    await lifesign.ask("POST", f"{path}/runs/c/finish")
    await lifesign.ask("POST", f"{path}/runs/d/finish", {"ok": False})
    await lifesign.advance(3700)
    await lifesign.ask("PATCH", path, {"tolerance": None})


# Channels -----------------------------------------------------------------------------------------------------------
def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def _sample(build: Callable[..., HttpRequest], config: Mapping[str, str]) -> HttpRequest:
    message = samples.message(
        text="Nightly Export missed its check-in: expected 2026-03-08T07:00:00.000Z, 60 s late",
        url=None,
        ack_url=None,
        heartbeat=samples.heartbeat(id="hb_0199e6a1b2c37d4e8f00112233445566", metadata={"rows": 1200}),
        incident=samples.incident(id="inc_0199e6a1b2c37d4e8f00112233445566"),
    )
    context = samples.context(
        channel_id="ch_0199e6a1b2c37d4e8f00112233445566", notification_id="ntf_0199e6a1b2c37d4e8f00112233445566"
    )
    return build(message, config, context)


def test_the_bodies_in_the_reference_are_what_channels_send() -> None:
    shown = [json.loads(block) for block in _blocks(REFERENCE / "channels.md", "json")]

    sent = [
        _sample(slack.build, {"webhookUrl": "https://example.org/slack"}),
        _sample(pagerduty.build, {"routingKey": "R0123456789ABCDEFGHIJKLMNOPQRSTU"}),
        _sample(webhook.build, {"url": "https://example.org/hook", "secret": SECRET}),
    ]
    assert shown == [json.loads(request.content) for request in sent]


def test_the_headers_in_the_reference_are_what_webhooks_send() -> None:
    shown = dict(line.split(": ", 1) for line in _blocks(REFERENCE / "channels.md", "text")[0].splitlines())

    assert shown == _sample(webhook.build, {"url": "https://example.org/hook", "secret": SECRET}).headers


def test_the_python_of_the_reference_tells_our_webhooks_from_forged_ones() -> None:
    names: Json = {}
    exec(_blocks(REFERENCE / "channels.md", "python")[0], names)  # noqa: S102 - the example is what is tested
    is_from_lifesign = names["is_from_lifesign"]
    request = _sample(webhook.build, {"url": "https://example.org/hook", "secret": SECRET})
    sent_at = int(request.headers["webhook-timestamp"])

    assert is_from_lifesign(SECRET, request.headers, request.content, sent_at + 300)
    assert not is_from_lifesign(SECRET, request.headers, request.content + b" ", sent_at)
    assert not is_from_lifesign(SECRET, request.headers, request.content, sent_at + 301)
    assert not is_from_lifesign("whsec_" + "A" * 32, request.headers, request.content, sent_at)


def test_the_shell_of_the_reference_computes_the_signature_that_it_shows(tmp_path: Path) -> None:
    ran = _run(_script(REFERENCE / "channels.md"), tmp_path, url="http://127.0.0.1:1")

    assert ran.strip() == _blocks(REFERENCE / "channels.md", "text")[1].strip()
    notification_id = "ntf_0199e6a1b2c37d4e8f00112233445566"
    signed = webhook.signature(SECRET, notification_id, "1772953261", content=b'{"type":"channel.test"}')
    assert signed == f"v1,{ran.strip()}"


def test_the_ladder_in_the_reference_is_the_one_that_is_climbed() -> None:
    text = (REFERENCE / "channels.md").read_text()
    shown = re.search(r"The ladder, with 20 % of chance: ([^.]*), then every hour", text)

    assert shown is not None
    unit = {"s": 1000, "min": 60_000}
    rungs = [int(count) * unit[name] for count, name in re.findall(r"(\d+) (s|min)", shown[1])]
    assert rungs == list(rules.LADDER_MS)
    assert rules.JITTER == 0.2


# Examples -----------------------------------------------------------------------------------------------------------
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[^>]*) -->\n)?^```sh\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_LONGEST_S = 60
_EVIDENT = ("curl ", "openssl ", ".venv/bin/lifesign ")
PAGES = [ROOT / "README.md", DOCS / "quickstart.md", *sorted((DOCS / "howto").glob("*.md"))]


def _script(page: Path) -> str:
    """The examples of a page as one script; empty when there are none to run."""
    parts = []
    for block in _BLOCK.finditer(page.read_text()):
        mark, code = block["mark"] or "", block["code"]
        if mark == "run in the background":
            parts.append(f"{{\n{code}}} &\n")
        elif mark == "run" or (not mark.startswith("not run: ") and any(word in code for word in _EVIDENT)):
            parts.append(code)
    return "\n".join(parts)


def _run(script: str, directory: Path, *, url: str) -> str:
    """What the script printed; it must succeed, every call in it included."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        receiver = f"127.0.0.1:{free.getsockname()[1]}"
    adapted = script.replace(".venv/bin/", f"{Path(sys.executable).parent}/").replace("127.0.0.1:9000", receiver)
    adapted = adapted.replace('("127.0.0.1", 9000)', f'("127.0.0.1", {receiver.rpartition(":")[2]})')
    adapted = adapted.replace("http://127.0.0.1:8080", url)
    # An example whose call is refused is a broken example.
    preamble = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFESIGN_")}
    environment |= {"KEY": ADMIN_KEY, "LIFESIGN_URL": url}
    printed, told = directory / "examples.out", directory / "examples.err"
    with printed.open("wb") as out, told.open("wb") as err:
        # A session of its own, so that what runs in the background can be ended with it.
        shell = subprocess.Popen(
            ["bash", "-c", preamble + adapted],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = shell.wait(_LONGEST_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    assert code == 0, f"{printed.read_text()}\n{told.read_text()}"
    return printed.read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if _script(page)], ids=lambda page: page.stem)
def test_the_examples_of_a_page_work_as_written(page: Path, tmp_path: Path) -> None:
    with serving(tmp_path, log_level="error") as server:
        _run(_script(page), tmp_path, url=server.url)


def test_the_pages_that_are_for_the_shell_have_examples_that_are_run() -> None:
    run = {page.stem for page in PAGES if _script(page)}

    assert run >= {"README", "quickstart", "watch-a-cron-job", "escalate", "backup"}


def test_the_quickstart_ends_with_an_incident_that_was_told_and_acknowledged(tmp_path: Path) -> None:
    with serving(tmp_path, log_level="error") as server:
        _run(_script(DOCS / "quickstart.md"), tmp_path, url=server.url)

        incidents = server.ask("GET", "/v1/incidents")["incidents"]
        assert [(each["reason"], each["resolution"], each["message"]) for each in incidents] == [
            ("unhealthy", "ack", "making room on the disk")
        ]
        assert len(_told(server)) >= 1


def _told(server: Server) -> list[Json]:
    return [each for each in server.ask("GET", "/v1/notifications")["notifications"] if each["kind"] == "page"]


def test_a_backup_made_while_the_server_runs_can_be_restored(tmp_path: Path) -> None:
    with serving(tmp_path / "old", log_level="error") as server:
        server.heartbeat("nightly-export")
        server.webhook("http://127.0.0.1:1/", secret=SECRET)
        output = _run(_script(DOCS / "howto" / "backup.md"), tmp_path / "old", url=server.url)

    assert output.splitlines() == ["ok"]
    restored = tmp_path / "old" / "restored"
    with serving(tmp_path / "new", data_dir=restored, log_level="error") as server:
        assert server.ask("GET", "/v1/heartbeats/nightly-export")["slug"] == "nightly-export"
        [channel] = server.ask("GET", "/v1/channels")["channels"]
        assert channel["config"] == {"url": "http://127.0.0.1:1/", "secret": "****" + SECRET[-4:]}


def test_every_link_between_the_pages_leads_somewhere() -> None:
    template = DOCS / "decisions" / "0000-template.md"
    pages = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")} - {template}
    links = [
        (page, target)
        for page in sorted(pages)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target
    ]

    assert links
    assert [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()] == []
