"""`lifesign demo`, played once, and interrupted once."""

import re
import signal
import socket
from pathlib import Path

import httpx2

from lifesign.cli.demo import is_signed
from lifesign.cli.demo_web import EMAIL, PASSWORD
from tests.cli.conftest import lifesign_command, started


def test_the_demo_shows_an_outage_from_silence_to_recovery_and_leaves_nothing(tmp_path: Path) -> None:
    # A setting of a real server must not reach the demo.
    ran = lifesign_command("demo", env={"TMPDIR": str(tmp_path), "LIFESIGN_PORT": "not a port"})

    lines = [re.sub(r"^ *[\d.]+ s +", "", line) for line in ran.text.splitlines()]
    assert ran.code == 0, ran.err
    told = [
        "mail      to on-call@example.org: DOWN: Nightly backup",
        "webhook   incident.opened, signature verified",
        "mail      to on-call@example.org: UP: Nightly backup",
        "webhook   incident.resolved, signature verified",
    ]
    assert sorted(line for line in lines if line in told) == sorted(told)
    assert lines.index(told[0]) < lines.index(told[1]) < min(lines.index(told[2]), lines.index(told[3]))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_demo_stops_its_server_and_leaves_nothing(tmp_path: Path) -> None:
    with started(["demo"], {"TMPDIR": str(tmp_path)}) as process:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        port = int(first.rsplit(":", 1)[1])

        process.send_signal(signal.SIGINT)

        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, b"")
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_with_a_past_is_filled_shown_and_gone(tmp_path: Path) -> None:
    arguments = ["demo", "--web", "--days", "1", "--port", "0", "--no-browser"]
    with started(arguments, {"TMPDIR": str(tmp_path)}) as process:
        assert process.stdout is not None
        told: list[str] = []
        while not any(" live " in line for line in told):
            line = process.stdout.readline().decode()
            assert line, process.communicate()[1].decode()
            told.append(line)
        url = re.search(r"http://\S+", "".join(told))
        assert url is not None
        public = httpx2.get(f"{url[0]}/status/shop", trust_env=False)
        with httpx2.Client(base_url=url[0], trust_env=False, follow_redirects=True) as browser:
            browser.post("/signin", data={"email": EMAIL, "password": PASSWORD})
            pages = {
                path: browser.get(path).text for path in ("/", "/incidents", "/telemetry", "/diagnosis", "/systems")
            }

        process.send_signal(signal.SIGINT)

        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (130, b"")
    assert public.status_code == 200
    assert "Example Shop" in public.text
    assert "Nightly backup" in pages["/"]
    assert "Invoices" in pages["/incidents"]
    assert "ticket-40" in pages["/telemetry"]
    assert "find_order" in pages["/diagnosis"]
    assert "build1" in pages["/systems"]
    assert list(tmp_path.iterdir()) == []


def test_a_signature_is_good_for_its_very_content_only() -> None:
    # The example of the Standard Webhooks specification.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    headers = {
        "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "Webhook-Timestamp": "1614265330",
        "Webhook-Signature": f"v1,bm9ldHUjKzFob2VudXRob2VodWUzMjRvdWVvdW9ldQo= {good}",
    }

    assert is_signed(secret, headers, b'{"test": 2432232314}')
    assert not is_signed(secret, headers, b'{"test": 2432232315}')
    assert not is_signed(secret, {}, b'{"test": 2432232314}')
