"""`/llms.txt` names everything that `/openapi.json` describes."""

from tests.harness import Lifesign


async def test_llms_txt_names_every_call_and_needs_no_key(lifesign: Lifesign) -> None:
    paths = (await lifesign.ask("GET", "/openapi.json"))["paths"]

    answer = await lifesign.client(None).get("/llms.txt")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    calls = [f"- `{verb.upper()} {path}`: " for path, item in paths.items() for verb in item]
    assert len(calls) == 134
    assert [call for call in calls if answer.text.count(call) != 1] == []


async def test_llms_txt_shows_a_body_that_can_be_sent(lifesign: Lifesign) -> None:
    text = (await lifesign.client(None).get("/llms.txt")).text
    line = next(line for line in text.splitlines() if line.startswith("- `POST /v1/heartbeats`"))
    body = line.rpartition("Example: `")[2].removesuffix("`.")

    answer = await lifesign.http.post("/v1/heartbeats", content=body)

    assert "`name` (required)" in line
    assert answer.status_code == 201
