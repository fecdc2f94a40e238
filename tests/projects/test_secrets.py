"""The secret behind the codes, and that neither keys nor codes are ever seen but by whoever they are for."""

import re
import stat
from pathlib import Path

import httpx2
import pytest

from lifesign.cli.environment import read_settings
from lifesign.cli.errors import WrongUsage
from lifesign.projects import service
from lifesign.secretfile import SecretKeyUnusable
from lifesign.settings import Settings
from tests.faults.server import Server, serving
from tests.harness import Json, MakeLifesign
from tests.projects.visitors import code_of, visitor

FILE = "signup_upgrade_secret"


async def test_the_secret_is_made_once_and_only_its_owner_reads_it(
    start_lifesign: MakeLifesign, settings: Settings
) -> None:
    file = settings.data_dir / FILE
    async with start_lifesign() as lifesign, visitor(lifesign) as someone:
        made = await someone.provision("shop")
        secret = file.read_text()
        assert re.fullmatch(r"[0-9a-f]{64}\n", secret)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert made["recovery_code"] == code_of(secret.strip(), f"recover:{made['project_id']}")

    async with start_lifesign() as lifesign, visitor(lifesign) as someone:
        again = await someone.provision("shop", key=made["agent_key"], expect=200)

    assert file.read_text() == secret
    assert again["recovery_code"] == made["recovery_code"]
    assert [each.name for each in settings.data_dir.iterdir() if each.name.startswith(".")] == []


def test_a_secret_that_is_set_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFESIGN_SIGNUP_UPGRADE_SECRET", " my own ")

    codes = service.codes_of(Settings(data_dir=tmp_path))

    assert codes is not None
    assert codes.recovery("p") == code_of(" my own ", "recover:p")
    assert list(tmp_path.iterdir()) == []


def test_a_secret_that_is_no_text_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFESIGN_SIGNUP_UPGRADE_SECRET", "half a se\udcffcret")

    with pytest.raises(WrongUsage) as refusal:
        read_settings()

    assert "LIFESIGN_SIGNUP_UPGRADE_SECRET: must be UTF-8 text" in str(refusal.value)
    assert "half" not in str(refusal.value)


def test_an_empty_secret_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFESIGN_SIGNUP_UPGRADE_SECRET", "")

    assert service.codes_of(Settings(data_dir=tmp_path)) is not None

    assert (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", ["", "short", "\n" * 64])
def test_a_secret_that_was_damaged_is_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)

    with pytest.raises(SecretKeyUnusable, match="restore a backup"):
        service.codes_of(Settings(data_dir=tmp_path))

    assert (tmp_path / FILE).read_text() == content


def _ask(server: Server, path: str, body: Json | None = None, key: str | None = None) -> httpx2.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    method = "GET" if body is None else "POST"
    return httpx2.request(method, server.url + path, json=body, headers=headers, trust_env=False)


def test_no_log_line_file_or_other_answer_has_a_key_or_a_code(tmp_path: Path) -> None:
    with serving(tmp_path, log_level="debug") as server:
        made = _ask(server, "/v1/provision", {"project_name": "shop"}).json()
        sandbox = _ask(server, "/v1/signup", {}).json()
        secret = (tmp_path / "data" / FILE).read_text().strip()
        upgrade = code_of(secret, f"signup-upgrade:sandbox:{sandbox['project_id']}")
        recovery = {"project_id": made["project_id"], "recovery_code": made["recovery_code"]}
        got = _ask(server, "/v1/recover", recovery).json()
        texts = [
            answer.text
            for answer in (
                _ask(server, "/v1/signup/upgrade", {"code": upgrade}, sandbox["agent_key"]),
                _ask(server, "/v1/signup/upgrade", {"code": made["recovery_code"]}, sandbox["agent_key"]),
                _ask(server, "/v1/provision", {"project_name": "shop"}, made["agent_key"]),
                _ask(server, "/v1/provision", {"project_name": "shop"}, got["producer_key"]),
                _ask(server, "/v1/provision", {"project_name": "shop"}, sandbox["agent_key"]),
                _ask(server, "/v1/recover", recovery | {"recovery_code": upgrade}),
                _ask(server, "/v1/recover", {"project_id": made["agent_key"], "recovery_code": upgrade}),
                # Where none of them belongs.
                _ask(server, f"/v1/provision/{made['agent_key']}"),
                _ask(server, f"/v1/recover/{made['recovery_code'].upper()}?key={made['producer_key']}"),
                _ask(server, f"/v1/heartbeats/{got['agent_key']}"),
                _ask(server, "/metrics"),
                _ask(server, "/ready"),
            )
        ]
        listed = server.ask("GET", "/v1/keys")
        server.terminate()
        assert server.exit_code() == 0

    log = server.log.read_text()
    secrets = [secret, upgrade, made["recovery_code"], sandbox["recovery_code"], made["recovery_code"].upper()]
    secrets += [each[name] for each in (made, sandbox, got) for name in ("producer_key", "agent_key")]
    assert log.count("request.handled") >= 15
    assert "project.recovered" in log
    assert "/v1/recover/<secret>" in log
    assert [each for each in secrets if each in log] == []
    assert [each for each in secrets if each in server.output.read_text()] == []
    # A path that nobody serves is not said again; what is left is what nobody asked for.
    assert [each for each in secrets if any(each in text for text in (*texts, str(listed)))] == []
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("lifesign.db*"))
    assert made["project_id"].encode() in stored
    assert [each for each in secrets if each.encode() in stored] == []
