"""The manifest of a run: what follows from a packet for whoever mends what it found. Spec "Diagnosis", section 9."""

from typing import Any, Final

FORMAT: Final = "improvement-packet/1"
_LEAST: Final = 2
_FAILURES: Final = frozenset({"tool_call_failed", "error"})

# Any, throughout: JSON.
Json = dict[str, Any]


def manifest_of(packet: Json, *, run_id: str, created_at: str) -> Json:
    """One case and one step for each issue that occurred more than once, in the packet's order."""
    recurring = [issue for issue in packet["issues"] if issue["count"] >= _LEAST]
    return {
        "schema": FORMAT,
        "run_id": run_id,
        "project_id": packet["project_id"],
        "packet_id": packet["packet_id"],
        "created_at": created_at,
        "packet": packet,
        "eval_candidates": [
            {
                "fingerprint": issue["fingerprint"],
                "name": issue["title"],
                "evidence_ids": issue["evidence_ids"],
                "expectation": _expectation(issue),
            }
            for issue in recurring
        ],
        "patch_plan": [
            {"fingerprint": issue["fingerprint"], "step": step, "next_action": issue["next_action"]}
            for step, issue in enumerate(recurring, 1)
        ],
        "approval": {"required": True, "approved": False, "approved_by": None},
    }


def _expectation(issue: Json) -> str:
    if issue["signal_type"] in _FAILURES:
        return f"{issue['operation']} completes without {issue['error_type']}"
    return f"no {issue['signal_type']} on {issue['operation']}"
