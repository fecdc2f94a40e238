"""In which order a plan is carried out, and what is known of it when something fails on the way."""

from typing import Any

import pytest

from lifesign.config import apply as applying
from lifesign.config import document as documents
from lifesign.config.apply import Progress
from lifesign.config.forms import present_of
from lifesign.config.kinds import wanted_of
from lifesign.config.rules import plan_of

BEAT = {"mode": "recurring", "interval": 60, "grace": 60, "timezone": "UTC", "stickyPause": True}
# `a` and `b` change places, and a channel is new.
SWAPPED = """\
channels:
  mail: {type: email, config: {to: [ops@example.org]}}
heartbeats:
  b: {mode: recurring, interval: 60, dependsOn: [a]}
  a: {mode: recurring, interval: 60}
"""


class AwayError(Exception):
    """Nobody answers."""


class Recorder:
    """A server that notes what it is asked to change, and is away when it is asked for the `fails_at`th time."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._fails_at = fails_at

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        raise AssertionError(path)

    def rows(self, path: str, name: str, limit: int | None) -> dict[str, Any]:
        raise AssertionError(path)

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        self._note("POST", path, body)
        return {"id": f"new_{len(self.asked)}", "config": {}}

    def patch(self, path: str, body: Any) -> dict[str, Any]:
        self._note("PATCH", path, body)
        return {}

    def put(self, path: str, body: Any) -> dict[str, Any]:
        self._note("PUT", path, body)
        return {}

    def delete(self, path: str, **query: Any) -> None:
        assert not query
        self._note("DELETE", path, None)

    def _note(self, method: str, path: str, body: Any) -> None:
        self.asked.append((method, path, body))
        if len(self.asked) == self._fails_at:
            raise AwayError


def carried_out(server: Recorder) -> Progress:
    a = BEAT | {"id": "hb_a", "slug": "a", "name": "a", "dependsOn": ["hb_b"]}
    b = BEAT | {"id": "hb_b", "slug": "b", "name": "b"}
    present = present_of({"heartbeats": [a, b]})
    document = documents.parsed(SWAPPED, "f.yaml")
    plan = plan_of(document, wanted_of(document, {}), present, prune=False)
    progress = Progress()
    try:
        applying.carry_out(server, plan, present, progress, lambda: None, project_id="p")
    except AwayError:
        assert server.asked
    return progress


def test_dependencies_go_right_before_the_first_edit_that_may_need_it() -> None:
    server = Recorder()

    carried_out(server)

    assert [(method, path) for method, path, _ in server.asked] == [
        ("POST", "/v1/channels"),
        ("PATCH", "/v1/heartbeats/hb_a"),
        ("PATCH", "/v1/heartbeats/hb_b"),
        ("PATCH", "/v1/heartbeats/hb_a"),
    ]
    assert [body for method, _, body in server.asked if method == "PATCH"] == [
        {"dependsOn": None},
        {"dependsOn": ["hb_a"]},
        {"dependsOn": None},
    ]


@pytest.mark.parametrize(("fails_at", "subject", "done"), [(1, "channel mail", 0), (2, "heartbeat a", 1)])
def test_a_failure_is_one_of_what_was_being_done(fails_at: int, subject: str, done: int) -> None:
    progress = carried_out(Recorder(fails_at))

    assert progress.at is not None
    assert (progress.at.subject, len(progress.done)) == (subject, done)
