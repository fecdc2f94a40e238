"""What the server tells of its Telemetry API: true, linked, and ready to be pasted. Spec "Telemetry", section 7."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it comes without types
import pytest

from lifesign.diagnosis.manifest import manifest_of
from tests.cli.conftest import Server, environment, running_server
from tests.harness import Lifesign, MakeLifesign
from tests.telemetry.requests import USUAL
from tests.telemetry.senders import sender, spans

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "telemetry.md"
DOCUMENTS = {
    "/llms.txt": "text/plain; charset=utf-8",
    "/quickstart.md": "text/markdown; charset=utf-8",
    "/agents.md": "text/markdown; charset=utf-8",
    "/openapi.json": "application/json",
    "/contact.json": "application/json",
    "/schema/telemetry-record.json": "application/schema+json",
    "/schema/session.json": "application/schema+json",
    "/schema/diagnosis-packet.json": "application/schema+json",
    "/schema/dashboard.json": "application/schema+json",
    "/schema/improvement-packet.json": "application/schema+json",
}


@pytest.mark.parametrize(("path", "kind"), DOCUMENTS.items())
async def test_every_document_needs_no_key_and_is_linked_both_ways(lifesign: Lifesign, path: str, kind: str) -> None:
    async with lifesign.client(None) as client:
        answer = await client.get(path)
        overview = (await client.get("/llms.txt")).text

    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert path == "/llms.txt" or f"(http://lifesign.test{path})" in overview
    assert path == "/llms.txt" or "/llms.txt" in answer.text


@pytest.mark.parametrize("path", DOCUMENTS)
async def test_a_document_is_looked_at_without_being_fetched(lifesign: Lifesign, path: str) -> None:
    async with lifesign.client(None) as client:
        looked = await client.head(path)
        refused = await client.post(path)

    assert (looked.status_code, looked.headers["content-type"], looked.content) == (200, DOCUMENTS[path], b"")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


async def test_programs_are_told_how_telemetry_differs_from_the_other_calls(lifesign: Lifesign) -> None:
    async with lifesign.client(None) as client:
        about = (await client.get("/llms.txt")).text.partition("\n## ")[0]
        described = (await client.get("/openapi.json")).json()["info"]["description"]

    for each in (" ".join(about.split()), " ".join(described.split())):
        assert "which `POST /v1/provision` makes: no admin key is needed" in each
        assert "There pages go on by `next_cursor`" in each
        assert "what has no value is null" in each


async def test_a_schema_of_nothing_is_not_found(lifesign: Lifesign) -> None:
    async with lifesign.client(None) as client:
        assert (await client.get("/schema/nothing.json")).status_code == 404


async def test_programs_are_told_every_code_with_its_status(lifesign: Lifesign) -> None:
    async with lifesign.client(None) as client:
        told = _codes((await client.get("/agents.md")).text)

    in_reference = _codes(REFERENCE.read_text())
    assert len(in_reference) > 30
    assert told == in_reference


def _codes(page: str) -> set[tuple[str, str]]:
    """Status and code of each row that begins so."""
    rows = re.findall(r"^\| (\d{3}) \| (`[^|]+`) \|", page, re.MULTILINE)
    return {(status, code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}


async def test_whom_to_write_to_is_what_the_settings_say(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(contact_email="ops@example.org") as lifesign, lifesign.client(None) as client:
        told = (await client.get("/contact.json")).json()

    assert told == {
        "name": "Lifesign",
        "email": "ops@example.org",
        "url": None,
        "purposes": ["production_tenant", "quota", "support"],
        "docs": "http://lifesign.test/llms.txt",
    }


async def test_answers_are_as_their_schemas_say(lifesign: Lifesign) -> None:
    event = {"timeUnixNano": "5", "name": "retry", "attributes": [{"key": "n", "value": {"intValue": "2"}}]}
    link = {"traceId": USUAL["traceId"], "spanId": USUAL["spanId"]}
    async with sender(lifesign) as ours, lifesign.client(ours.agent_key) as client:
        await ours.told(*spans(2), USUAL | {"events": [event], "links": [link], "status": {"code": 2}})
        schemas = {name: (await client.get(f"/schema/{name}.json")).json() for name in SCHEMAS}
        records = (await client.get("/v1/telemetry")).json()["records"]
        sessions = (await client.get("/v1/sessions")).json()["sessions"]
        packet = (await client.post("/v1/runs/diagnose")).json()["packet"]
        dashboard = (await client.get("/v1/dashboard")).json()

    manifest = manifest_of(packet, run_id="run_0", created_at=packet["created_at"])
    assert (len(records), len(sessions), len(packet["issues"])) == (3, 1, 1)
    for name, answers in (
        ("telemetry-record", records),
        ("session", sessions),
        ("diagnosis-packet", [packet]),
        ("dashboard", [dashboard]),
        ("improvement-packet", [manifest]),
    ):
        checker = jsonschema.Draft202012Validator(schemas[name], format_checker=jsonschema.FormatChecker())
        for answer in answers:
            checker.validate(answer)
        # The schema refuses what lacks a field: it says something.
        lacking = dict(list(answers[0].items())[1:])
        assert not checker.is_valid(lacking)


SCHEMAS = ("telemetry-record", "session", "diagnosis-packet", "dashboard", "improvement-packet")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("quickstart") / "data") as server:
        yield server


def test_the_quickstart_runs_as_it_is_printed(running: Server, tmp_path: Path) -> None:
    document = _got(f"{running.url}/quickstart.md")
    commands = re.findall(r"```sh\n(.*?)```", document, re.DOTALL)
    assert len(commands) == 6
    script = "set -euo pipefail\n" + "\n".join(commands) + '\nprintf "\\n%s" "$OTEL_EXPORTER_OTLP_HEADERS"\n'

    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )

    assert '{"ok":true,"accepted":1,"rejected":0}' in ran.stdout
    assert '"session_id":"first-session"' in ran.stdout
    assert '"input":812' in ran.stdout
    assert '"title":"tool_call_failed on search"' in ran.stdout
    assert "# my-agent" in ran.stdout
    assert "| low | tool\\_call\\_failed on search | 2 | new |" in ran.stdout
    key = json.loads((tmp_path / "lifesign-project.json").read_text())["producer_key"]
    assert ran.stdout.endswith(f"Authorization=Bearer%20{key}")


def _got(url: str) -> str:
    return subprocess.run(["curl", "-sS", url], capture_output=True, text=True, timeout=30, check=True).stdout
