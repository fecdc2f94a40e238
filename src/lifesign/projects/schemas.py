"""Wire models of self-service projects."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lifesign.auth.rules import KIND_SCOPES, Caller
from lifesign.auth.service import KeyPair
from lifesign.clock import EpochMs, rfc3339
from lifesign.http.describe import Refusal
from lifesign.http.fields import Body, Integer, Line, optional
from lifesign.http.ok import Json, OkBody
from lifesign.projects import rules
from lifesign.projects.rules import (
    MAX_NAME,
    CodeRequired,
    Codes,
    NameInvalid,
    NameRequired,
    RecoveryFieldsRequired,
)
from lifesign.projects.store import Project

DEFAULT_NAME = "project"
MAX_QUOTA = 10**15
MAX_DAYS = 3650


# In -----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Naming:
    """What a project shall be called, and for whom; empty: for nobody in particular."""

    project_name: str
    operator: str

    @property
    def identity(self) -> rules.Identity:
        """What it is found by again."""
        return rules.identity_of(self.project_name, self.operator)


def naming_of(body: Json) -> Naming:
    """The names in a body. Raises NameRequired, NameInvalid."""
    return Naming(name_of(body), _operator_of(body))


def name_of(body: Json, default: str | None = None) -> str:
    """The name of a project, trimmed. Raises NameRequired, NameInvalid."""
    value = body.get("project_name", default)
    if not isinstance(value, str) or not value.strip():
        raise NameRequired
    return rules.checked_name(value, "project_name")


def _operator_of(body: Json) -> str:
    value = body.get("operator", "")
    if not isinstance(value, str):
        raise NameInvalid("operator")
    return rules.checked_name(value, "operator") if value else ""


def code_of(body: Json) -> str:
    """The upgrade code in a body. Raises CodeRequired."""
    code = body.get("code")
    if not isinstance(code, str) or not code.strip():
        raise CodeRequired
    return code


def recovery_of(body: Json) -> tuple[str, str]:
    """Project id and recovery code. Raises RecoveryFieldsRequired."""
    project_id, code = body.get("project_id"), body.get("recovery_code")
    if not isinstance(project_id, str) or not isinstance(code, str) or not project_id.strip() or not code.strip():
        raise RecoveryFieldsRequired
    return project_id.strip(), code


# Out ----------------------------------------------------------------------------------------------------------------
def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)


def _keys(pair: KeyPair) -> Json:
    return {"producer_key": pair.producer, "agent_key": pair.agent}


def dashboard_url(project_id: str, base_url: str) -> str:
    """Where a person sees the project; holds no secret."""
    return f"{base_url}/dashboard?project={project_id}"


def minted(project: Project, pair: KeyPair, base_url: str, codes: Codes | None) -> Json:
    """A new project: the only answer but that of a recovery that has its keys."""
    return _shape(project, base_url, _keys(pair), _recovery(project, codes))


def resumed(project: Project, base_url: str, codes: Codes | None, *, shows_code: bool) -> Json:
    """A project that was found again, without keys."""
    return _shape(project, base_url, {}, _recovery(project, codes) if shows_code else {})


def _recovery(project: Project, codes: Codes | None) -> Json:
    return {"recovery_code": codes.recovery(project.id) if codes else None}


def _shape(project: Project, base_url: str, keys: Json, recovery: Json) -> Json:
    return {
        "project_id": project.id,
        "project_name": project.title,
        "tenant_id": project.tenant_id,
        **keys,
        "quota_spans": project.quota_spans,
        "expires_at": _time(project.expires_at),
        "ingest_url": f"{base_url}/v1/traces",
        "diagnose_url": f"{base_url}/v1/runs/diagnose",
        **recovery,
        "dashboard_url": dashboard_url(project.id, base_url),
    }


def provisioned(shape: Json, project: Project, *, is_resumed: bool) -> Json:
    """The answer of a provision."""
    return shape | {"resumed": is_resumed, "graduated": project.expires_at is None}


def upgraded(project: Project, caller: Caller, keys_upgraded: int) -> Json:
    """The answer of an upgrade."""
    return {
        "project_id": project.id,
        "tenant_id": project.tenant_id,
        "kind": "agent",
        "key_prefix": caller.key_prefix,
        "scopes": list(KIND_SCOPES["agent"]) if caller.kind == "agent" else sorted(caller.scopes),
        "quota_spans": project.quota_spans,
        "expires_at": _time(project.expires_at),
        "graduated": True,
        "keys_upgraded": keys_upgraded,
    }


def recovered(project: Project, pair: KeyPair, base_url: str) -> Json:
    """The answer of a recovery."""
    return {
        "project_id": project.id,
        **_keys(pair),
        "quota_spans": project.quota_spans,
        "expires_at": _time(project.expires_at),
        "dashboard_url": dashboard_url(project.id, base_url),
    }


# Described ----------------------------------------------------------------------------------------------------------
_PROJECT_ID = Field(examples=["my-app-3f9c2ab1"])
_TITLE = Field(min_length=1, description=f"1 to {MAX_NAME} characters once trimmed, with a letter or digit.")


class NewProvision(BaseModel):
    """What a project is found by again: the same two names are the same project, case, blanks and punctuation aside."""

    project_name: Annotated[str, _TITLE] = Field(examples=["my-app"])
    operator: str | None = Field(None, description="Whose it is; other operators may use the same name.")


class NewSignup(BaseModel):
    """What a sandbox is called; nothing is found by it."""

    project_name: Annotated[str, _TITLE] | None = Field(None, description=f"`{DEFAULT_NAME}` when absent.")


class Upgrade(BaseModel):
    """The code that the operator of the server gives out."""

    code: str = Field(min_length=1)


class Recovery(BaseModel):
    """A project, and the code that was shown when it was made."""

    project_id: str = Field(min_length=1, examples=["my-app-3f9c2ab1"])
    recovery_code: str = Field(min_length=1)


class ShownProject(OkBody):
    """A self-service project."""

    project_id: str = _PROJECT_ID
    project_name: str
    tenant_id: str
    quota_spans: int = Field(description="Distinct records a calendar month; 0: any number.")
    expires_at: datetime | None = Field(description="null: it stays.")
    ingest_url: str
    diagnose_url: str
    dashboard_url: str


class MintedProject(ShownProject):
    """A new project with its keys, which are shown once."""

    producer_key: str = Field(description="May send telemetry. Shown here and never again.")
    agent_key: str = Field(description="May read it, and have it diagnosed. Shown here and never again.")
    recovery_code: str | None = Field(description="Gets new keys when these are lost; null where switched off.")


class ProvisionedProject(MintedProject):
    """A new project with its keys, which are shown once."""

    resumed: Literal[False]
    graduated: bool = Field(description="Whether it stays.")


class ResumedProject(ShownProject):
    """The project that has these names already, without its keys."""

    resumed: Literal[True]
    graduated: bool = Field(description="Whether it stays, from now on at the latest.")
    recovery_code: str | None = optional("With the agent key only.")


class UpgradedProject(OkBody):
    """The project stays."""

    project_id: str = _PROJECT_ID
    tenant_id: str
    kind: Literal["agent"]
    key_prefix: str
    scopes: list[str]
    quota_spans: int
    expires_at: None
    graduated: Literal[True]
    keys_upgraded: int


class RecoveredProject(OkBody):
    """New keys, which are shown once; those before them are revoked."""

    project_id: str = _PROJECT_ID
    producer_key: str
    agent_key: str
    quota_spans: int
    expires_at: datetime | None
    dashboard_url: str


_BAD_NAME = Refusal(
    "The body is no JSON object, or a name is missing or tells nothing.",
    "project_name_required",
    "project_name is required",
)
_TOO_MANY = Refusal(
    "Too many within an hour; wait for the seconds in `Retry-After`.",
    "mint_rate_limited",
    "Too many new projects; try again later",
    header="Retry-After",
)
_SWITCHED_OFF = "Codes are switched off on this server; or its storage did not take it, then with `Retry-After`."
PROVISION_REFUSALS = {
    400: _BAD_NAME,
    401: Refusal(
        "The name is taken, and the key is missing, unknown, revoked or expired.",
        "missing_key",
        "Authorization: Bearer <key> is required",
        header="WWW-Authenticate",
    ),
    403: Refusal(
        "The name is taken, and the key is of another project.",
        "not_project_key",
        "The provided key does not authorize this project",
    ),
    409: Refusal(
        "Somebody else took the name at this moment.",
        "name_claimed",
        "Name was claimed by another mint; resume with one of its keys",
    ),
    429: _TOO_MANY,
}
SIGNUP_REFUSALS = {400: _BAD_NAME, 429: _TOO_MANY}
UPGRADE_REFUSALS = {
    400: Refusal("The body is no JSON object, or has no code.", "code_required", "code is required"),
    403: Refusal(
        "The code is wrong (`invalid_code`), or the project did not make itself (`not_sandbox`).",
        "invalid_code",
        "Upgrade code verification failed",
    ),
    503: Refusal(_SWITCHED_OFF, "upgrade_unavailable", "Upgrade is switched off on this server"),
}
RECOVER_REFUSALS = {
    400: Refusal(
        "The body is no JSON object, or a field is missing.",
        "recovery_fields_required",
        "project_id and recovery_code are required",
    ),
    403: Refusal(
        "The code is wrong, whether there is such a project or not; or (`not_sandbox`) it did not make itself.",
        "invalid_recovery_code",
        "Recovery code verification failed",
    ),
    404: Refusal("The code is right, but the project is gone.", "project_not_found", "No such project"),
    429: replace(_TOO_MANY, code="recover_rate_limited", message="Too many recoveries; try again later"),
    503: Refusal(_SWITCHED_OFF, "recovery_unavailable", "Recovery is switched off on this server"),
}


# For the operator ---------------------------------------------------------------------------------------------------
class OrderedProject(Body):
    """What the operator makes."""

    name: Annotated[str, Line(MAX_NAME)]
    tenant: str = optional()
    quotaSpans: Annotated[int, Integer(0, MAX_QUOTA)] = optional()


class Extension(Body):
    """For how many days more."""

    days: Annotated[int, Integer(1, MAX_DAYS)]


def listed(project: Project) -> dict[str, Any]:  # Any: JSON
    """A project as its operator sees it."""
    return {
        "id": project.id,
        "name": project.title,
        "tenant": project.tenant_id,
        "plan": project.plan,
        "quotaSpans": project.quota_spans,
        "createdAt": rfc3339(project.created_at),
        "expiresAt": _time(project.expires_at),
    }
