"""What must hold with a real model, whatever it says: `make test-model`.

LIFESIGN_TEST_MODEL_URL: a server of Chat Completions, as llama.cpp has it. LIFESIGN_TEST_MODEL: the name of a model,
which many such servers ignore. LIFESIGN_TEST_MODEL_KEY: its key, if it wants one.
"""

import os

import pytest
from pydantic import SecretStr

from lifesign.bots.runners.builtin import BuiltinRunner
from tests.bots.asking import asked, bot, configured, read
from tests.bots.asking_runs import ran
from tests.harness import Json, MakeLifesign

URL = os.environ.get("LIFESIGN_TEST_MODEL_URL")
MODEL = os.environ.get("LIFESIGN_TEST_MODEL", "default")
NOON = "2026-01-05T12:00:00.000Z"
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(URL is None, reason="LIFESIGN_TEST_MODEL_URL is not set"),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]
LIMITS = {"timeout_seconds": 300, "max_requests": 5, "max_tool_calls": 5, "max_output_tokens": 256}


async def _run(start_lifesign: MakeLifesign, prompt: str, **options: object) -> tuple[Json, list[Json], Json]:
    """A run, what was said in it, and its schedule afterwards."""
    key = SecretStr(os.environ.get("LIFESIGN_TEST_MODEL_KEY", "none"))
    async with start_lifesign(at=NOON, openai_base_url=URL, openai_api_key=key) as lifesign:
        assert isinstance(lifesign.node.bots.runner("builtin"), BuiltinRunner)
        made = await bot(lifesign, model=MODEL, lifesign={"credits_per_1k_tokens": 1} | options)
        schedule = await configured(lifesign, made["id"], prompt=prompt, lifesign={"limits": LIMITS})
        run = await ran(lifesign, schedule)
        told = await asked(lifesign, "GET", "/heartbeat/transcript", run_id=run["uuid"])
        return run, told["transcript"], await read(lifesign, schedule)


async def test_a_run_ends_is_charged_and_is_written_down(start_lifesign: MakeLifesign) -> None:
    run, said, schedule = await _run(start_lifesign, "Say in five words that all is well.")

    assert run["status"] == "success", run["error_message"]
    assert run["response"].strip()
    assert run["tokens_used"] == run["lifesign"]["input_tokens"] + run["lifesign"]["output_tokens"] > 0
    assert run["credits_charged"] == schedule["credits_used"] > 0
    assert [each["role"] for each in said[:3]] == ["system", "user", "assistant"]
    assert schedule["lifesign"]["credits_reserved"] == 0


async def test_a_model_with_tools_stays_within_its_limits(start_lifesign: MakeLifesign) -> None:
    run, said, _ = await _run(
        start_lifesign, "Call the tool now, then call report with the time as title.", tools=["now"]
    )

    assert run["status"] in {"success", "error"}
    assert run["lifesign"]["reason"] in {None, "invalid_output", "limit_requests", "limit_tool_calls"}
    assert run["lifesign"]["requests"] <= LIMITS["max_requests"]
    assert run["lifesign"]["tool_calls"] <= LIMITS["max_tool_calls"]
    calls = {call["id"] for each in said for call in each.get("tool_calls") or ()}
    assert {each["tool_call_id"] for each in said if each["role"] == "tool"} <= calls
