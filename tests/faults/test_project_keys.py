"""Keys that were answered work, whatever happens to the server a moment later."""

from pathlib import Path

import httpx2

from tests.faults.server import Server, serving
from tests.harness import Json


def _post(server: Server, path: str, body: Json, key: str | None = None) -> httpx2.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx2.post(server.url + path, json=body, headers=headers, trust_env=False)


def test_keys_that_were_answered_work_after_a_kill(tmp_path: Path, database_url: str | None) -> None:
    with serving(tmp_path, database_url=database_url) as server:
        made = _post(server, "/v1/provision", {"project_name": "shop"})
        server.kill()
    assert made.status_code == 201
    agent, producer = made.json()["agent_key"], made.json()["producer_key"]

    with serving(tmp_path, database_url=database_url) as server:
        found = [_post(server, "/v1/provision", {"project_name": "shop"}, key) for key in (agent, producer)]
        recovery = {name: made.json()[name] for name in ("project_id", "recovery_code")}
        got = _post(server, "/v1/recover", recovery)
        server.kill()
    assert [each.status_code for each in (*found, got)] == [200, 200, 200]

    with serving(tmp_path, database_url=database_url) as server:
        old = _post(server, "/v1/provision", {"project_name": "shop"}, agent)
        new = _post(server, "/v1/provision", {"project_name": "shop"}, got.json()["agent_key"])
    assert (old.status_code, old.json()["error"]) == (401, "revoked_key")
    assert (new.status_code, new.json()["recovery_code"]) == (200, made.json()["recovery_code"])
