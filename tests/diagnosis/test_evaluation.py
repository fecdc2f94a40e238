"""The evaluation: every rule finds the fault that was planted for it, and runs of others are read as they were told."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.diagnosis import runs, scoring, synthetic
from benchmarks.diagnosis.diagnosing import in_process
from benchmarks.diagnosis.formats import NotThisFormat, runs_of
from benchmarks.diagnosis.runs import Label, Run, step_of
from lifesign.diagnosis.rules import all_rules

TAU = [
    {
        "task_id": 3,
        "trial": 0,
        "reward": 0.0,
        "traj": [
            {"role": "system", "content": "policy"},
            {"role": "user", "content": "hello"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": '{"a":1}'}}],
            },
            {"role": "tool", "tool_call_id": "c1", "name": "find", "content": "Error: user not found"},
            {"role": "assistant", "content": "sorry"},
        ],
    }
]
WHO = {
    "history": [
        {"role": "user", "name": "Planner", "content": "plan"},
        {"role": "user", "name": "Coder", "content": "x"},
    ],
    "is_correct": False,
    "mistake_agent": "Coder",
    "mistake_step": "1",
}
SWE = {
    "trajectory_format": "mini-swe-agent-1",
    "instance_id": "repo-1",
    "info": {"exit_status": "Submitted", "scores": {"resolved": True}},
    "messages": [
        {"role": "user", "content": "fix it"},
        {"role": "assistant", "content": "look\n```bash\nls\n```"},
        {"role": "user", "content": "<returncode>0</returncode>"},
    ],
}


def file_of(directory: Path, document: object, name: str = "a.json") -> Path:
    path = directory / name
    path.write_text(json.dumps(document))
    return path


def spans_of(run: Run) -> list[Any]:  # Any: JSON
    [resource] = run.request["resourceSpans"]
    [scope] = resource["scopeSpans"]
    return list(scope["spans"])


def attributes_of(span: Any) -> dict[str, str]:  # Any: JSON
    return {each["key"]: next(iter(each["value"].values())) for each in span["attributes"]}


def test_every_rule_finds_the_fault_that_was_planted_for_it_and_none_fires_on_healthy_runs() -> None:
    told = scoring.score(synthetic.runs(), in_process)

    assert told["planted"] == {"found": sorted(rule.signal_type for rule in all_rules()), "missed": []}
    assert (told["runs"], told["healthy"], told["false_alarms_per_100_healthy"]) == (36, 20, 0)
    assert {each["precision"] for each in told["signals"].values()} == {1.0}
    assert told["reruns_identical"] is True


def test_what_is_written_is_read_again_and_the_same_run_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    count = runs.write(synthetic.runs(), first)
    runs.write(runs.read(first), second)

    assert count > 36
    for name in (runs.RUNS, runs.LABELS):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_run_of_tau_bench_has_its_calls_with_arguments_and_results(tmp_path: Path) -> None:
    [run] = runs_of("tau-bench", file_of(tmp_path, TAU))
    root, *steps = spans_of(run)

    assert run.label == Label("tau/a/3/0", passed=False)
    assert [span["name"] for span in (root, *steps)] == ["invoke_agent agent", "chat", "execute_tool find", "chat"]
    assert {span["parentSpanId"] for span in steps} == {root["spanId"]}
    assert attributes_of(steps[1]) == {
        "gen_ai.agent.name": "agent",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "find",
        "gen_ai.tool.call.arguments": '{"a":1}',
        "gen_ai.tool.call.result": "Error: user not found",
    }
    assert [step_of("rec_" + span["traceId"] + span["spanId"]) for span in steps] == [2, 2, 4]
    assert not [span for span in steps if "status" in span]


def test_a_label_on_the_result_of_a_tool_is_one_on_its_call(tmp_path: Path) -> None:
    messages = [each | {"index": number} for number, each in enumerate(TAU[0]["traj"], 1)]  # type: ignore[arg-type, var-annotated]  # JSON
    file_of(tmp_path, {"traj": messages, "trajectory_id": "t-1"})
    file_of(tmp_path, [{"trajectory_id": "t-1", "failures": [{"step_number": 4}]}], "labels.json")

    [run] = runs_of("agentrx", tmp_path)

    assert run.label == Label("agentrx/a", passed=False, steps=(3,))
    assert step_of(spans_of(run)[2]["spanId"]) == 3


def test_several_agents_and_the_one_that_went_wrong(tmp_path: Path) -> None:
    [run] = runs_of("who-and-when", file_of(tmp_path, WHO))

    assert (run.label.passed, run.label.steps, run.label.agent) == (False, (1,), "Coder")
    assert [attributes_of(span)["gen_ai.agent.name"] for span in spans_of(run)] == ["Planner", "Planner", "Coder"]


def test_commands_of_a_shell_are_calls_of_a_tool(tmp_path: Path) -> None:
    [run] = runs_of("mini-swe", file_of(tmp_path, SWE))
    _, _, call = spans_of(run)

    assert run.label == Label("mini-swe/repo-1", passed=True)
    assert attributes_of(call)["gen_ai.tool.call.arguments"] == '{"command": "ls"}'
    assert attributes_of(call)["gen_ai.tool.call.result"] == "<returncode>0</returncode>"


@pytest.mark.parametrize(
    ("format_name", "document"), [("tau-bench", WHO), ("who-and-when", SWE), ("mini-swe", TAU), ("agentrx", WHO)]
)
def test_a_file_of_another_format_is_named(tmp_path: Path, format_name: str, document: object) -> None:
    path = file_of(tmp_path, document)

    with pytest.raises(NotThisFormat, match=str(path)):
        list(runs_of(format_name, path))


def test_steps_are_hit_by_the_first_evidence_of_the_worst_issue(tmp_path: Path) -> None:
    told = json.loads(json.dumps(TAU))
    told[0]["traj"] *= 2
    [run] = runs_of("tau-bench", file_of(tmp_path, told))
    right, wrong = (Run(run.request, Label(run.label.run, passed=False, steps=(step,))) for step in (2, 9))

    hit, missed = (scoring.score([each], in_process) for each in (right, wrong))

    assert (hit["step_hit_1"]["hits"], missed["step_hit_1"]["hits"], missed["step_hit_3"]["of"]) == (1, 0, 1)
    # Ours were added, so that precision means something.
    assert (hit["healthy"], hit["base_rate"]) == (20, round(1 / 21, 4))
