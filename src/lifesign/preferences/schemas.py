"""The settings of a project on the wire."""

from typing import Any, Literal

from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, optional
from lifesign.preferences.service import Preferences


class ShownDiagnosisAlert(Body):
    """Whom a diagnosis pages. `policy` is absent once it was deleted by force."""

    policy: str = optional("Id of a policy.")
    severity: Literal["critical", "high", "medium", "low"]


class ShownSettings(Body):
    """The project's settings; those that are not set are absent."""

    fallbackChannel: str = optional("Id of a channel.")
    diagnosisAlert: ShownDiagnosisAlert = optional("Absent when diagnoses page nobody.")


def shown_settings(preferences: Preferences) -> dict[str, Any]:  # Any: JSON
    """The settings on the wire."""
    alert = preferences.alert
    return without_absent(
        {
            "fallbackChannel": preferences.fallback_channel,
            "diagnosisAlert": alert and without_absent({"policy": alert.policy_id, "severity": alert.severity}),
        }
    )
