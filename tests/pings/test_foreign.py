"""Clients that others wrote, as they are, against a real server: nothing but the address and the key is ours."""

import itertools
import json
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it comes without types
import pytest
from pydantic import SecretStr

from tests.faults.server import Server, serving, until
from tests.harness import ADMIN_KEY, Json
from tests.postgres import Databases

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)
PYTHON = ROOT / ".venv" / "foreign" / "bin" / "python"
SCRIPT = Path(__file__).parent / "foreign" / "use_client.py"
# What shields.io accepts from an endpoint, by its own documentation.
SHIELDS = {
    "type": "object",
    "required": ["schemaVersion", "label", "message"],
    "properties": {
        "schemaVersion": {"const": 1},
        "label": {"type": "string"},
        "message": {"type": "string", "minLength": 1},
        "color": {"type": "string"},
    },
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own process, for all tests of this file: each looks at what it made itself."""
    variables: dict[str, object] = {
        "allow_private_targets": "true",
        "log_level": "error",
        "ping_smtp_listen": "127.0.0.1:0",
    }
    with ExitStack() as stack:
        if request.param == "postgresql":
            cluster: Databases = request.getfixturevalue("cluster")
            migrated: str = request.getfixturevalue("migrated")
            variables["database_url"] = stack.enter_context(cluster.new_database(template=migrated))
        started = stack.enter_context(serving(tmp_path_factory.mktemp("server"), **variables))
        started.webhook("http://127.0.0.1:1")
        yield started


def _key(server: Server, *scopes: str) -> str:
    return str(server.ask("POST", "/v1/keys", {"name": "k", "scopes": list(scopes)}, expect=201)["token"])


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_package_healthchecks_io_works_with_another_address_and_key(server: Server, mode: str) -> None:
    if not PYTHON.exists():
        pytest.skip("its environment is made by `make test`")
    arguments = [
        f"{server.url}/api/",
        ADMIN_KEY,
        _key(server, "heartbeats:read"),
        f"{server.url}/ping/",
        _key(server, "checkins:write"),
    ]

    done = subprocess.run(
        [str(PYTHON), str(SCRIPT), mode, *arguments], capture_output=True, text=True, timeout=120, check=False
    )

    assert (done.returncode, done.stdout) == (0, "all is well\n"), done.stderr


@pytest.mark.parametrize(
    ("recipe", "pings"),
    [
        ("curl -fsS -m 10 --retry 5 -o /dev/null $URL", 1),
        ("curl -fsS --retry 3 $URL/start && true; curl -fsS --retry 3 $URL/$?", 2),
        ('m=$(echo "a line" 2>&1); curl -fsS -m 10 --retry 5 --data-raw "$m" $URL/$?', 1),
        ("echo 'a line' | curl -fsS -m 10 --data-binary @- $URL", 1),
        ("curl -fsS -I $URL", 1),
        ("curl -fsS -X POST -H 'Content-Type: application/json' -d '{\"a\":1}' $URL/log", 1),
        ("RID=$(cat /proc/sys/kernel/random/uuid); curl -fsS $URL/start?rid=$RID; curl -fsS $URL?rid=$RID", 2),
        ("curl -fsS -m 10 $BASE/ping/$PING_KEY/$SLUG", 1),
        # What runitor sends for one command: its start, then its exit status with its output, by one run id.
        (
            (
                "RID=$(cat /proc/sys/kernel/random/uuid); U=$BASE/ping/$PING_KEY/$SLUG; "
                "curl -fsS -X POST $U/start?rid=$RID; "
                "echo out | curl -fsS -H 'Content-Type: text/plain' --data-binary @- $U/0?rid=$RID; "
                'curl -fsS -H "X-Api-Key: $API_KEY" $BASE/api/v1/checks/${URL##*/}/pings/2/body | grep -x out'
            ),
            2,
        ),
        ("curl -fsS -m 10 $BASE/ping/$PING_KEY/$SLUG-new?create=1", 1),
    ],
)
def test_recipes_for_curl_work_as_they_are(server: Server, recipe: str, pings: int) -> None:
    slug = f"recipe-{next(_numbers)}"
    made = server.ask("POST", "/api/v3/checks/", {"api_key": ADMIN_KEY, "name": slug, "slug": slug}, expect=201)
    key = _key(server, "checkins:write")
    names = f"URL={made['ping_url']}; BASE={server.url}; PING_KEY={key}; SLUG={slug}; API_KEY={ADMIN_KEY}; "

    done = subprocess.run(["bash", "-euc", names + recipe], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    counts = {each["slug"]: each["n_pings"] for each in _checks(server)}
    assert counts[slug] + counts.get(f"{slug}-new", 0) == pings


def _checks(server: Server) -> list[Json]:
    answer = subprocess.run(
        ["curl", "-fsS", "-H", f"X-Api-Key: {ADMIN_KEY}", f"{server.url}/api/v1/checks/"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: list[Json] = json.loads(answer.stdout)["checks"]
    return found


def test_badges_are_what_shields_accepts(server: Server) -> None:
    server.ask("POST", "/api/v3/checks/", {"api_key": ADMIN_KEY, "tags": "prod"}, expect=201)
    listed = subprocess.run(
        ["curl", "-fsS", "-H", f"X-Api-Key: {ADMIN_KEY}", f"{server.url}/api/v3/badges/"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    urls = json.loads(listed.stdout)["badges"]

    for formats in urls.values():
        for name in ("shields", "shields3"):
            jsonschema.validate(server.request("GET", formats[name].removeprefix(server.url)).json(), SHIELDS)


def test_no_log_line_tells_how_to_ping(tmp_path: Path) -> None:
    with serving(tmp_path, log_level="debug") as server:
        made = server.ask("POST", "/api/v3/checks/", {"api_key": ADMIN_KEY}, expect=201)
        key, reader = _key(server, "checkins:write"), _key(server, "heartbeats:read")
        paths = [
            made["ping_url"].removeprefix(server.url),
            f"/ping/{key}/nobody",
            f"/ping/{ADMIN_KEY}/nobody",
            f"/projects/{made['uuid']}/metrics/{reader}",
            f"/api/v3/checks/{made['uuid']}/pings/",
        ]
        for path in paths:
            server.request("GET", path)
        # The line of a request is written after its answer.
        until(lambda: "/api/v3/checks/<uuid>/pings/" in server.log.read_text())
        logged = server.log.read_text()

    assert "ping_key.too_powerful" in logged
    assert [secret for secret in (made["uuid"], key, reader, ADMIN_KEY) if secret in logged] == []


def test_a_ping_that_was_answered_is_there_after_a_kill(tmp_path: Path, database_url: SecretStr | None) -> None:
    url = database_url and database_url.get_secret_value()
    with serving(tmp_path, log_level="error", database_url=url) as server:
        made = server.ask("POST", "/api/v3/checks/", {"api_key": ADMIN_KEY}, expect=201)
        path = made["ping_url"].removeprefix(server.url)
        assert server.request("POST", path).status_code == 200
        server.kill()

    with serving(tmp_path, log_level="error", database_url=url) as server:
        (found,) = _checks(server)

    assert found["n_pings"] == 1


def test_the_server_takes_pings_by_e_mail_where_it_says_so(server: Server) -> None:
    made = server.ask("POST", "/api/v3/checks/", {"api_key": ADMIN_KEY}, expect=201)
    line = next(each for each in server.output.read_text().splitlines() if each.startswith("taking pings by e-mail"))
    host, _, port = line.split()[-1].rpartition(":")

    with smtplib.SMTP(host, int(port), timeout=20) as client:
        client.sendmail("cron@db1", [f"{made['uuid']}@anything"], "Subject: done\r\n\r\nall is well\r\n")

    assert [each["n_pings"] for each in _checks(server) if each["ping_url"] == made["ping_url"]] == [1]
