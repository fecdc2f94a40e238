"""The operator's commands about keys of the Vitals API, while a server runs and without one."""

from pathlib import Path

import httpx2
import pytest

from tests.cli.conftest import Server, lifesign_command, running_server
from tests.harness import ADMIN_KEY, Json
from tests.postgres import Cluster

OVERVIEW = "/api/dashboard/overview"


def take(server: Server, email: str) -> httpx2.Response:
    body = {"name": "Jane [bold] Smith", "email": email}
    return httpx2.post(f"{server.url}/api/keys", json=body, trust_env=False)


def status_of(server: Server, key: str) -> int:
    return httpx2.get(server.url + OVERVIEW, headers={"X-API-Key": key}, trust_env=False).status_code


def listed(*where: str, env: dict[str, str] | None = None) -> dict[str, Json]:
    """Keys by their ids."""
    ran = lifesign_command("vitals", "keys", "list", "--json", *where, env=env)
    assert ran.code == 0, ran.err
    return {str(each["id"]): each for each in ran.json["keys"]}


def test_a_key_is_listed_and_revoked_while_the_server_runs(server: Server) -> None:
    where = ("--data-dir", str(server.data_dir))
    made = take(server, "Listed@x.io").json()["api_key"]
    assert status_of(server, made["key"]) == 200

    row = listed(*where)[str(made["id"])]
    table = lifesign_command("vitals", "keys", "list", *where).text
    revoked = lifesign_command("vitals", "keys", "revoke", str(made["id"]), *where)

    assert (row["prefix"], row["email"], row["requests"]) == (made["key"][:9], "Listed@x.io", 1)
    assert row["lastUsedAt"] is not None
    assert made["key"] not in table
    assert "Jane [bold] Smith  Listed@x.io" in table
    assert revoked.text == f"revoked key {made['id']}\n"
    assert status_of(server, made["key"]) == 401
    assert listed(*where)[str(made["id"])]["revokedAt"] is not None
    again = lifesign_command("vitals", "keys", "revoke", str(made["id"]), *where)
    assert (again.code, again.err) == (4, f"lifesign: Resource not found: /admin/vitals/keys/{made['id']}\n")


def test_an_address_is_allowed_more_keys(server: Server) -> None:
    where = ("--data-dir", str(server.data_dir))
    assert [take(server, "more@x.io").status_code for _ in range(4)] == [201, 201, 201, 429]

    allowed = lifesign_command("vitals", "keys", "allow", " More@X.io ", "5", *where)

    assert allowed.text == "more@x.io may have 5 keys\n"
    assert [take(server, "more@x.io").status_code for _ in range(3)] == [201, 201, 429]
    fewer = lifesign_command("vitals", "keys", "allow", "more@x.io", "2", "--json", *where)
    assert fewer.json == {"email": "more@x.io", "keys": 2}
    assert take(server, "more@x.io").json()["message"].startswith("Maximum 2 API keys per email.")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("revoke", "999999"), 4, "Resource not found"),
        (("revoke", "x"), 2, "invalid value for 'ID': must be a valid integer (lifesign vitals keys revoke --help"),
        (("allow", "nowhere", "5"), 4, "email must be an e-mail address"),
        (("allow", "a@x.io", "10001"), 4, "keys must be"),
    ],
)
def test_what_cannot_be_done_is_told(server: Server, arguments: tuple[str, ...], code: int, told: str) -> None:
    ran = lifesign_command("vitals", "keys", *arguments, "--data-dir", str(server.data_dir))

    assert (ran.code, told in ran.err) == (code, True), ran.err


def test_only_the_socket_leads_to_these_routes(server: Server) -> None:
    for method, path in (("GET", "/admin/vitals/keys"), ("POST", "/admin/vitals/allowances")):
        headers = {"Authorization": f"Bearer {server.key}"}
        answer = httpx2.request(method, server.url + path, headers=headers, trust_env=False)

        assert answer.status_code == 404


def test_without_a_server_the_commands_work_on_its_directory(tmp_path: Path) -> None:
    place = tmp_path / "data"
    where = ("--data-dir", str(place))
    with running_server(place, LIFESIGN_ADMIN_KEY=ADMIN_KEY) as server:
        made = take(server, "jane@x.io").json()["api_key"]
        assert status_of(server, made["key"]) == 200

    # The end of the server has written down what it had counted.
    assert listed(*where)[str(made["id"])]["requests"] == 1
    assert lifesign_command("vitals", "keys", "revoke", str(made["id"]), *where).code == 0
    with running_server(place, LIFESIGN_ADMIN_KEY=ADMIN_KEY) as server:
        assert status_of(server, made["key"]) == 401


def test_on_postgresql_the_commands_write_to_the_database(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create_database("lifesign_cli_vitals")
    env = {"LIFESIGN_DATABASE_URL": cluster.url("lifesign_cli_vitals"), "LIFESIGN_DATA_DIR": str(tmp_path)}
    try:
        allowed = lifesign_command("vitals", "keys", "allow", "jane@x.io", "7", env=env)
        empty = lifesign_command("vitals", "keys", "list", env=env)
    finally:
        cluster.drop_database("lifesign_cli_vitals")

    assert allowed.text == "jane@x.io may have 7 keys\n"
    assert (empty.text, "no keys" in empty.err) == ("", True)
