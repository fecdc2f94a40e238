"""The operator's commands about projects, while a server runs and without one."""

import stat
from pathlib import Path

import httpx2
import pytest

from tests.cli.conftest import Server, lifesign_command, running_server
from tests.harness import Json
from tests.postgres import Cluster
from tests.projects.visitors import code_of

SECRET = "an-operators-secret-for-codes"


def post(server: Server, path: str, body: Json, key: str | None = None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.post(server.url + path, json=body, headers=headers, trust_env=False)


def where(server: Server) -> tuple[str, str]:
    return ("--data-dir", str(server.data_dir))


def test_a_sandbox_is_listed_extended_upgraded_and_deleted(server: Server) -> None:
    made = post(server, "/v1/signup", {"project_name": "Shop"}).json()
    project_id, agent = made["project_id"], made["agent_key"]

    [row] = [
        each
        for each in lifesign_command("projects", "list", "--json", *where(server)).json["projects"]
        if each["id"] == project_id
    ]
    table = lifesign_command("projects", "list", *where(server)).text
    extended = lifesign_command("projects", "extend", project_id, "--days", "16", "--json", *where(server)).json
    code = lifesign_command("projects", "upgrade-code", project_id, *where(server))
    upgraded = post(server, "/v1/signup/upgrade", {"code": code.text}, agent)

    assert (row["name"], row["tenant"], row["plan"], row["quotaSpans"]) == ("Shop", "sandbox", "sandbox", 1_000_000)
    assert row["expiresAt"] == made["expires_at"]
    assert project_id in table
    assert "in 13d" in table or "in 14d" in table
    assert extended["expiresAt"] > made["expires_at"]
    assert upgraded.json()["expires_at"] is None

    deleted = lifesign_command("projects", "delete", project_id, *where(server))
    again = lifesign_command("projects", "delete", project_id, *where(server))

    assert deleted.text == f"deleted project {project_id}\n"
    assert (again.code, again.err) == (4, f"lifesign: Resource not found: /admin/projects/{project_id}\n")
    refused = post(server, "/v1/signup/upgrade", {"code": code.text}, agent)
    assert (refused.status_code, refused.json()["error"]) == (401, "revoked_key")


def test_a_project_is_made_with_both_its_keys(server: Server) -> None:
    made = lifesign_command("projects", "create", "Back Office", "--quota", "0", "--json", *where(server)).json
    shown = lifesign_command("projects", "create", "Lab", "--tenant", "research", *where(server)).text

    assert made["id"].startswith("back-office-")
    assert (made["tenant"], made["quotaSpans"], made["expiresAt"], made["plan"]) == ("default", 0, None, None)
    refused = post(server, "/v1/signup/upgrade", {"code": "x"}, made["agentKey"])
    assert (refused.status_code, refused.json()["error"]) == (403, "not_sandbox")
    keys = [line.split()[-1] for line in shown.splitlines() if "key" in line]
    assert [key[:9] for key in keys] == ["lk_ingest", "lk_agent_"]
    listed = lifesign_command("projects", "list", "--json", *where(server)).json["projects"]
    assert ("Lab", "research", 1_000_000) in [(each["name"], each["tenant"], each["quotaSpans"]) for each in listed]


def test_keys_for_other_apis_are_made_for_a_project_by_its_id(server: Server) -> None:
    made = post(server, "/v1/provision", {"project_name": "with jobs"}).json()

    key = lifesign_command(
        "keys",
        "create",
        "--project",
        made["project_id"],
        "--name",
        "jobs",
        "--scope",
        "heartbeats:write",
        *where(server),
    ).text.strip()
    created = post(server, "/v1/heartbeats", {"name": "n", "mode": "recurring", "interval": 60}, key)
    listed = lifesign_command("keys", "list", "--project", made["project_id"], "--json", *where(server)).json["keys"]

    assert created.status_code == 201
    assert sorted(each["name"] for each in listed) == ["agent", "jobs", "producer"]
    assert "jobs" not in lifesign_command("keys", "list", *where(server)).text.split()


def test_a_project_is_found_by_its_name_wherever_one_is_asked_for(server: Server) -> None:
    made = lifesign_command("projects", "create", "Ferns/Flechten \u706b", "--json", *where(server)).json
    named = ("--project", "Ferns/Flechten \u706b", *where(server))

    key = lifesign_command("keys", "create", "--name", "k", *named).text.strip()
    listed = lifesign_command("keys", "list", "--json", *named).json["keys"]
    let_in = lifesign_command("users", "add", "ada@example.org", *named)
    env = {"LIFESIGN_URL": server.url, "LIFESIGN_KEY": key}
    whose = httpx2.get(f"{server.url}/v1/whoami", headers={"Authorization": f"Bearer {key}"}, trust_env=False).json()
    bots = [
        lifesign_command("bots", "settings", *project, env=env).code
        for project in ((), named[:2], ("--project", made["id"]))
    ]
    other = lifesign_command("bots", "settings", "--project", "default", env=env)
    stays = lifesign_command("projects", "extend", named[1], "--days", "1", *where(server))
    deleted = lifesign_command("projects", "delete", named[1], *where(server))
    gone = lifesign_command("keys", "list", *named)

    assert "k" in [each["name"] for each in listed]
    assert let_in.code == 0
    assert (whose["project"], whose["projectId"]) == (named[1], made["id"])
    assert bots == [0, 0, 0]
    told = f"the key belongs to the project {named[1]} ({made['id']}), not to default"
    assert (other.code, other.err) == (4, f"lifesign: {told}\n")
    assert "permanent" in stays.err
    assert deleted.code == 0
    assert (gone.code, "does not exist" in gone.err) == (4, True)


def test_of_several_projects_with_one_name_an_id_has_to_be_given(server: Server) -> None:
    made = [lifesign_command("projects", "create", "Twins", "--json", *where(server)).json["id"] for _ in range(2)]

    keys = lifesign_command("keys", "list", "--project", "Twins", *where(server))
    deleted = lifesign_command("projects", "delete", "Twins", *where(server))

    for ran in (keys, deleted):
        assert ran.code == 4
        assert all(each in ran.err for each in made)
    assert lifesign_command("keys", "list", "--project", made[0], *where(server)).code == 0
    # What is an id, or the first project of all, is not taken for a name.
    named = lifesign_command("projects", "create", made[1], "--json", *where(server)).json
    lifesign_command("projects", "create", "default", *where(server))
    listed = lifesign_command("keys", "list", "--project", made[1], "--json", *where(server)).json["keys"]
    again = lifesign_command("keys", "list", "--project", "default", "--json", *where(server)).json["keys"]
    assert named["id"] != made[1]
    assert len(listed) == 2
    assert "admin" in [each["name"] for each in again]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "..."), "name must be 1 to 100 characters with at least one letter or digit"),
        (("create", "x", "--tenant", "sandbox"), "tenant must be 1 to 64"),
        (("create", "x", "--tenant", "A b"), "tenant must be 1 to 64"),
        (("delete", "default"), "the project default cannot be deleted"),
        (("delete", "nobody-00000000"), "Resource not found"),
        (("extend", "nobody-00000000", "--days", "1"), "Resource not found"),
        (("upgrade-code", "nobody-00000000"), "Resource not found"),
    ],
)
def test_what_cannot_be_done_is_told(server: Server, arguments: tuple[str, ...], told: str) -> None:
    ran = lifesign_command("projects", *arguments, *where(server))

    assert ran.code == 4
    assert told in ran.err


def test_a_project_that_stays_is_neither_extended_nor_upgraded(server: Server) -> None:
    made = lifesign_command("projects", "create", "Stays", "--json", *where(server)).json

    extended = lifesign_command("projects", "extend", made["id"], "--days", "1", *where(server))
    code = lifesign_command("projects", "upgrade-code", made["id"], *where(server))

    assert (extended.code, "permanent" in extended.err) == (4, True)
    assert (code.code, "only projects of the tenant sandbox" in code.err) == (4, True)


def test_only_the_socket_leads_to_these_routes(server: Server) -> None:
    for path in ("/admin/projects", "/admin/projects/x/upgrade-code", "/admin/x"):
        answer = httpx2.get(server.url + path, headers={"Authorization": f"Bearer {server.key}"}, trust_env=False)

        assert answer.status_code == 404
        assert "Nothing here" in answer.text  # the page for an address that is no page, not these routes' refusal
    assert stat.S_IMODE((server.data_dir / "admin.sock").stat().st_mode) == 0o600


def test_without_a_server_the_same_secret_gives_the_same_codes(tmp_path: Path) -> None:
    place = tmp_path / "data"
    with running_server(place) as server:
        made = post(server, "/v1/signup", {}).json()
        running = lifesign_command("projects", "upgrade-code", made["project_id"], *where(server))
    secret = (place / "signup_upgrade_secret").read_text().strip()

    stopped = lifesign_command("projects", "upgrade-code", made["project_id"], "--data-dir", str(place))
    listed = lifesign_command("projects", "list", "--json", "--data-dir", str(place)).json["projects"]

    assert stopped.text == running.text == code_of(secret, f"signup-upgrade:sandbox:{made['project_id']}") + "\n"
    assert made["project_id"] in [each["id"] for each in listed]


def test_without_a_secret_there_is_no_code(tmp_path: Path) -> None:
    off = {"LIFESIGN_SIGNUP_UPGRADE_SECRET": "off"}
    with running_server(tmp_path / "data", **off) as server:
        made = post(server, "/v1/signup", {}).json()

        ran = lifesign_command("projects", "upgrade-code", made["project_id"], *where(server))

    assert made["recovery_code"] is None
    assert (ran.code, "switched off" in ran.err) == (1, True)


def test_on_postgresql_the_commands_write_to_the_database(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create_database("lifesign_cli_projects")
    env = {
        "LIFESIGN_DATABASE_URL": cluster.url("lifesign_cli_projects"),
        "LIFESIGN_DATA_DIR": str(tmp_path),
        "LIFESIGN_SIGNUP_UPGRADE_SECRET": SECRET,
    }
    try:
        made = lifesign_command("projects", "create", "one", "--json", env=env).json
        listed = lifesign_command("projects", "list", "--json", env=env).json["projects"]
        deleted = lifesign_command("projects", "delete", made["id"], env=env)
        left = lifesign_command("projects", "list", "--json", env=env).json["projects"]
    finally:
        cluster.drop_database("lifesign_cli_projects")

    assert [each["name"] for each in listed] == ["one", "default"]
    assert deleted.code == 0
    assert [each["name"] for each in left] == ["default"]
