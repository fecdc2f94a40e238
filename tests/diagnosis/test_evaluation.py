"""The evaluation: every rule finds the fault that was planted for it, and runs of others are read as they were told."""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.diagnosis import formats, runs, scoring, synthetic, traffic
from benchmarks.diagnosis.__main__ import main
from benchmarks.diagnosis.diagnosing import Server, in_process
from benchmarks.diagnosis.formats import NotThisFormat, runs_of
from benchmarks.diagnosis.runs import Label, Run, step_of
from lifesign.diagnosis.rules import all_rules
from tests.harness import Json, MakeLifesign

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
SAMPLE = Path(formats.__file__).parent / "tau_bench" / "runs.json"
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


EVERY_RULE = sorted(rule.signal_type for rule in all_rules())
_PAIRS = 16 * 15 // 2


@pytest.fixture(scope="module")
def told() -> Json:
    """The scores of the set that is always there."""
    return scoring.score(synthetic.runs(), in_process)


def test_every_rule_finds_the_fault_that_was_planted_for_it_alone_and_beside_any_other(told: Json) -> None:
    in_overlaps = sum(len(faults) for faults, _ in synthetic.OVERLAPS.values())

    assert told["planted"] == {"faults": 16 + 2 * _PAIRS + in_overlaps, "rules": EVERY_RULE, "missed": []}


def test_no_rule_fires_just_below_its_threshold(told: Json) -> None:
    assert told["near_misses"] == {"runs": 16, "rules": EVERY_RULE, "fired": []}


def test_no_rule_fires_on_healthy_runs(told: Json) -> None:
    assert (told["runs"], told["healthy"], told["unlabelled"]) == (
        20 + 16 + len(synthetic.OVERLAPS) + _PAIRS,
        20,
        16,
    )
    assert told["false_alarms_per_100_healthy"] == 0
    assert {each["precision"] for each in told["signals"].values()} == {1.0}


def test_scores_have_every_figure_and_a_base_rate_beside_each_precision(told: Json) -> None:
    base_rate = round(1 - 20 / told["runs"], 4)

    assert list(told["signals"]) == [rule.signal_type for rule in all_rules()]
    for signal in told["signals"].values():
        assert list(signal) == ["fires", "precision", "base_rate", "recall"]
        # Alone, and beside each other one; others find some of the same.
        assert signal["fires"] >= 16
        assert signal["recall"] == round(signal["fires"] / (told["runs"] - 20), 4)
    for name in ("tool_call_failed_3", "tool_loop_or_pattern"):
        assert list(told[name]) == ["precision", "base_rate"]
    for each in (*told["signals"].values(), told["tool_call_failed_3"], told["tool_loop_or_pattern"], told):
        assert each["base_rate"] == base_rate
    for name in ("step_hit_1", "step_hit_3"):
        assert told[name] == {"hits": 15, "of": 15, "share": 1.0}
    assert told["reruns_identical"] is True


def test_what_several_rules_see_in_the_same_records_is_told_once() -> None:
    told = {
        run.label.run: in_process([run.request], before)
        for run, before in with_baselines(synthetic.runs())
        if run.label.run.startswith("overlap-")
    }

    assert {
        name.removeprefix("overlap-"): [(each["title"], each["patterns"]) for each in packet["issues"]]
        for name, packet in told.items()
    } == {
        "loop-of-failures": [("tool_call_failed on search", ["ignored_error", "retry_storm", "tool_loop"])],
        "slower-and-slow": [("latency_regression on search", ["slow_operation"])],
        "failing-more-often": [("tool_call_failed on search", ["error_rate_regression", "retry_storm"])],
        "blocking-more-often": [
            ("error_rate_regression on check", []),
            ("guardrail_block on check", []),
            ("retry_storm on check", []),
        ],
        "looking-for-nothing": [("empty_result on search", []), ("tool_loop on search", [])],
        "growing-dear-and-cut": [
            ("cost_spike on model-a", []),
            ("output_truncated on model-a", []),
            ("token_runaway on clerk", []),
        ],
    }


def with_baselines(given: Iterable[Run]) -> list[tuple[Run, list[Json]]]:
    """Each run with what arrived in the window before it."""
    all_runs = list(given)
    before = {run.label.of: [run.request] for run in all_runs if run.label.of is not None}
    return [(run, before.get(run.label.run, [])) for run in all_runs if run.label.of is None]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_server_says_the_same_as_the_rules_in_this_process(start_lifesign: MakeLifesign) -> None:
    names = {*(f"healthy-{number:02}" for number in range(3)), *(f"fault-{fault}" for fault in synthetic.FAULTS)}
    given = [run for run in synthetic.runs() if (run.label.of or run.label.run) in names]
    comparing = {run.label.of for run in given if run.label.of is not None}
    expected = scoring.score([run for run in given if not {run.label.run, run.label.of} & comparing], in_process)
    loop = asyncio.get_running_loop()

    async with start_lifesign(mint_limit_per_hour=0) as lifesign:

        async def asked(path: str, body: Json, key: str | None) -> tuple[int, Json]:
            async with lifesign.client(key) as client:
                answer = await client.post(path, json=body)
                return answer.status_code, answer.json()

        def post(path: str, body: Json, key: str | None) -> tuple[int, Json]:
            return asyncio.run_coroutine_threadsafe(asked(path, body, key), loop).result(60)

        diagnose = Server("http://lifesign.test", post).diagnose
        told = await asyncio.to_thread(scoring.score, given, diagnose, on_a_clock=True)

    assert comparing == {"fault-error_rate_regression", "fault-latency_regression", "fault-cost_spike"}
    assert set(told.pop("left_out")) == comparing
    assert expected.pop("left_out") == []
    assert told["planted"]["missed"] == []
    assert told == expected


def test_a_server_that_refuses_is_told_with_its_address_and_its_words() -> None:
    def refuses(_path: str, _body: Json, _key: str | None) -> tuple[int, Json]:
        return 429, {"ok": False, "error": "rate_limited", "message": "Too many new projects"}

    def is_gone(_path: str, _body: Json, _key: str | None) -> tuple[int, Json]:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(
        ValueError, match="http://x/v1/provision: 429, Too many new projects; start it with LIFESIGN_MI"
    ):
        Server("http://x/", refuses).diagnose([], [])
    with pytest.raises(ValueError, match=r"cannot reach http://x: .*refused"):
        Server("http://x/", is_gone).diagnose([], [])


# The worst issue of each signal, and patterns. Where rules say something of healthy traffic, it is what their letter
# asks for: failures count even when they were made good; a retry is an equal call; what runs side by side lies in a
# row; a failure that another tool made good is ignored; and more sessions cost more.
HEALTHY_TRAFFIC: dict[str, tuple[dict[str, str], list[str]]] = {
    "retries": ({"tool_call_failed": "medium"}, []),
    "third-attempts": ({"tool_call_failed": "medium", "retry_storm": "low"}, ["tool_loop"]),
    "parallel": ({"tool_loop": "medium"}, []),
    "low-traffic": ({"tool_call_failed": "low"}, []),
    "morning": ({"cost_spike": "high"}, []),
    "other-tools": ({"tool_call_failed": "high"}, ["ignored_error"]),
    "many-operations": ({"tool_call_failed": "medium"}, []),
}


@pytest.mark.parametrize("kind", traffic.KINDS)
def test_what_the_rules_say_of_healthy_traffic_is_known(kind: str) -> None:
    [said] = traffic.said_of(in_process, [kind])

    assert said["records"] > 20
    assert (said["worst"], said["patterns"]) == HEALTHY_TRAFFIC.get(kind, ({}, []))


def test_what_is_written_is_read_again_and_the_same_run_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    count = runs.write(synthetic.runs(), first)
    runs.write(runs.read(first), second)

    assert count > 162
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


def test_two_calls_of_one_id_have_each_its_own_result(tmp_path: Path) -> None:
    """Models do that: what the second one gave back is not what the first one did."""
    call = {"role": "assistant", "content": None}
    traj = [
        call | {"tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "name": "find", "content": "found"},
        call | {"tool_calls": [{"id": "c1", "function": {"name": "book", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "name": "book", "content": "Error: full"},
        call | {"tool_calls": [{"id": "c2", "function": {"name": "end", "arguments": "{}"}}]},
    ]
    told = file_of(tmp_path, [{"task_id": 1, "reward": 1.0, "traj": traj}])
    steps = file_of(tmp_path, {"traj": traj, "failures": [{"step_number": 1}, {"step_number": 3}]}, "b.json")

    [run] = runs_of("tau-bench", told)
    [numbered] = runs_of("agentrx", steps)

    results = {
        span["name"]: attributes_of(span).get("gen_ai.tool.call.result")
        for span in spans_of(run)
        if span["name"].startswith("execute_tool")
    }
    assert results == {"execute_tool find": "found", "execute_tool book": "Error: full", "execute_tool end": None}
    assert numbered.label.steps == (0, 2)


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


def test_of_several_commands_at_once_each_has_its_own_result(tmp_path: Path) -> None:
    calls = [
        {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": "bash", "arguments": f'{{"command":"{command}"}}'},
        }
        for number, command in enumerate(("ls", "pwd"))
    ]
    told = SWE | {
        "trajectory_format": "mini-swe-agent-1.1",
        "messages": [
            {"role": "user", "content": "fix it"},
            {"role": "assistant", "content": "look ```bash\nls\n```", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c0", "content": "a file"},
            {"role": "tool", "tool_call_id": "c1", "content": "a directory"},
            {"role": "exit", "content": "diff"},
        ],
    }

    [run] = runs_of("mini-swe", file_of(tmp_path, told, "a.traj.json"))

    assert [
        (each["gen_ai.tool.call.arguments"], each["gen_ai.tool.call.result"])
        for each in map(attributes_of, spans_of(run))
        if "gen_ai.tool.name" in each
    ] == [('{"command":"ls"}', "a file"), ('{"command":"pwd"}', "a directory")]


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


# On the command line ------------------------------------------------------------------------------------------------
def ran(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks.diagnosis", *map(str, arguments)])
    return main()


def test_runs_are_converted_and_scored_with_healthy_ones_and_gates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = file_of(tmp_path, TAU), tmp_path / "out"

    assert ran(monkeypatch, "convert", "--format", "tau-bench", source, out) == 0
    assert capsys.readouterr().out == "1 runs\n"
    assert ran(monkeypatch, "score", out) == 0
    told = json.loads(capsys.readouterr().out)

    assert (told["runs"], told["healthy"], told["base_rate"]) == (21, 20, round(1 / 21, 4))
    assert told["signals"]["tool_call_failed"] == {
        "fires": 1,
        "precision": 1.0,
        "base_rate": told["base_rate"],
        "recall": 1.0,
    }
    assert told["signals"]["tool_loop"] == {
        "fires": 0,
        "precision": None,
        "base_rate": told["base_rate"],
        "recall": 0.0,
    }
    assert told["gates"] == {
        "tool_call_failed_3": None,
        "tool_loop_or_pattern": None,
        "false_alarms": True,
        "reruns_identical": True,
    }


def test_runs_that_others_published_are_beside_it_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran(monkeypatch, "convert", "--format", "tau-bench", SAMPLE, tmp_path) == 0
    assert ran(monkeypatch, "score", tmp_path) == 0
    told = json.loads(capsys.readouterr().out.removeprefix("20 runs\n"))

    assert (told["runs"], told["healthy"], told["base_rate"]) == (20, 6, 0.7)
    fired = {name: (each["fires"], each["precision"]) for name, each in told["signals"].items() if each["fires"]}
    assert fired == {"tool_call_failed": (4, 0.75), "retry_storm": (1, 1.0), "empty_result": (1, 1.0)}
    assert (told["together"]["telemetry_read"], told["together"]["failures"]) == (395, 7)
    assert told["gates"] == {
        "tool_call_failed_3": True,
        "tool_loop_or_pattern": None,
        "false_alarms": True,
        "reruns_identical": True,
    }


RUN = '{"resourceSpans":[]}\n'
LABEL = '{"run":"a","passed":true,"steps":[]}\n'


@pytest.mark.parametrize(
    ("requests", "labels", "words"),
    [
        (None, LABEL, "runs.jsonl"),
        (RUN, None, "labels.jsonl"),
        (RUN + RUN, LABEL, "labels.jsonl: has no line 2, and the other file has"),
        (RUN, LABEL + LABEL, "runs.jsonl: has no line 2, and the other file has"),
        ("{\n", LABEL, "runs.jsonl, line 1: is no JSON"),
        (RUN, "{\n", "labels.jsonl, line 1: is no label"),
        (RUN, '{"run":"a"}\n', "labels.jsonl, line 1: is no label ('passed')"),
        (RUN, '{"run":"a","passed":"yes"}\n', "labels.jsonl, line 1: is no label (run is a text"),
        (RUN, '{"run":"a","passed":true,"odd":1}\n', "labels.jsonl, line 1: is no label"),
        (RUN, "[]\n", "labels.jsonl, line 1: is no label"),
        ("[]\n", LABEL, "a run is no request of OTLP"),
        ('{"resourceSpans":[{"scopeSpans":[{"spans":["x"]}]}]}\n', LABEL, "spans were rejected"),
    ],
)
def test_what_cannot_be_scored_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    requests: str | None,
    labels: str | None,
    words: str,
) -> None:
    for name, content in ((runs.RUNS, requests), (runs.LABELS, labels)):
        if content is not None:
            (tmp_path / name).write_text(content)

    assert ran(monkeypatch, "score", tmp_path) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("benchmarks.diagnosis: ")
    assert words in told.err


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no JSON file"), ("{", "is no JSON"), ("[1]", "is no file of tau-bench"), ("7", "is no file of")],
)
def test_what_cannot_be_converted_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    content: str | None,
    words: str,
) -> None:
    source = tmp_path / "in.json"
    if content is not None:
        source.write_text(content)

    assert ran(monkeypatch, "convert", "--format", "tau-bench", source, tmp_path / "out") == 1

    assert capsys.readouterr().err.startswith(f"benchmarks.diagnosis: {source}: {words}")
