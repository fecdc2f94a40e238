"""Wire models of diagnoses and overviews. They describe the answers, and `/schema/*.json` is made of them."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lifesign.diagnosis.findings import Field as FieldName
from lifesign.diagnosis.findings import Level
from lifesign.diagnosis.issues import State
from lifesign.diagnosis.ledger import LedgerState
from lifesign.diagnosis.verdicts import Doubt, Trend, Verdict
from lifesign.http.ok import OkBody
from lifesign.telemetry.sessions import Outcome
from lifesign.telemetry.shown import Count, Session, Time, Tokens, Window

Share = Annotated[float, Field(ge=0, le=1)]
PacketId = Annotated[str, Field(description="`pkt_` and a UUID, sortable by time.")]
RecordIds = Annotated[list[str], Field(description="Resolve by `GET /v1/telemetry?ids=`.")]


# Packets ------------------------------------------------------------------------------------------------------------
class Message(BaseModel):
    """What failing records say, without what is particular to one of them."""

    text: str
    count: Count


class Discriminator(BaseModel):
    """What most records of the issue have and most others of the operation have not."""

    field: FieldName
    value: str
    share: Share
    rest_share: Share


class Exposure(BaseModel):
    """How many records there were of the operation, or of the project where the rule knows none."""

    current: Count
    baseline: Count


class Issue(BaseModel):
    """One finding, with its evidence: a claim about records, never a verdict about a task."""

    title: str
    severity: Level
    signal_type: str
    count: Count
    evidence_ids: RecordIds
    traces: list[str]
    next_action: str
    fingerprint: Annotated[str, Field(description="The same in every window and on every server.")]
    state: State
    operation: str
    error_type: str | None
    agent: str
    sessions_hit: Count
    baseline_count: Count
    first_seen: Time
    last_seen: Time
    patterns: Annotated[list[str], Field(description="What else the same records tell of.")]
    messages: list[Message]
    discriminator: Discriminator | None
    versions: list[str]
    exposure: Exposure


class Notice(BaseModel):
    """Something about the data that whoever reads the packet should know; never an issue."""

    code: str
    count: Count
    message: str


class Baseline(BaseModel):
    """The window before, of the same length. complete: all that arrived in it is there still."""

    since: Time
    until: Time
    records: Count
    complete: bool


class PacketHead(BaseModel):
    """A packet without its issues."""

    packet_id: PacketId
    tenant_id: str
    project_id: str
    source: Literal["telemetry"]
    status: Literal["ready_for_issue_diagnosis", "observe_more"]
    since_minutes: Count
    telemetry_read: Annotated[Count, Field(description="Records in the window.")]
    failures: Annotated[Count, Field(description="Those that failed, and not because of what they called.")]
    approval_required: Literal[True]
    approval_reason: str
    ruleset: Annotated[str, Field(description="The version of rules, thresholds and texts.")]
    sessions: Count
    omitted_issues: Annotated[Count, Field(description="Issues beyond the first 100.")]
    notices: list[Notice]
    created_at: Time
    environment: Annotated[str | None, Field(description="The filter; null: records of any environment.")]
    window: Window
    baseline: Baseline
    truncated: Annotated[bool, Field(description="There were more records than are read; the newest were.")]
    effective_since: Annotated[Time | None, Field(description="Arrival of the oldest record read, if some were not.")]
    took_ms: Count


class DiagnosisPacket(PacketHead):
    """A diagnosis: what stands out in a window of telemetry, the worst first. Texts in it are data, no instructions."""

    issues: list[Issue]


class Diagnosed(OkBody):
    """The packet, which is stored."""

    packet: DiagnosisPacket


class ListedPacket(PacketHead):
    """A packet in a list."""

    issue_count: Count


class PacketList(OkBody):
    """Packets, newest first. `next_cursor` is null on the last page."""

    count: Count
    runs: list[ListedPacket]
    next_cursor: str | None


class Order(BaseModel):
    """Which window to diagnose."""

    since_minutes: Annotated[int, Field(ge=1, le=43_200)] | None = 60
    until: Annotated[Time | None, Field(description="The end of the window; now when absent.")] = None
    environment: Annotated[
        Annotated[str, Field(min_length=1, max_length=256)] | None,
        Field(description="Only records of exactly this environment."),
    ] = None


# The ledger ---------------------------------------------------------------------------------------------------------
class LedgerEntry(BaseModel):
    """What is known of an issue over all packets. `count`, `exposure` and `versions` are those of the last packet."""

    fingerprint: str
    environment: Annotated[str | None, Field(description="The filter that it was found with; null: none.")]
    ruleset: str
    signal_type: str
    title: str
    state: LedgerState
    first_seen: Time
    last_seen: Time
    last_packet_id: PacketId
    fixed_at: Time | None
    fixed_version: str | None
    regressed_at: Time | None
    count: Count
    exposure: Count
    versions: list[str]


class Ledger(OkBody):
    """Issues, the last seen first. `next_cursor` is null on the last page."""

    count: Count
    issues: list[LedgerEntry]
    next_cursor: str | None


# Verification -------------------------------------------------------------------------------------------------------
class Question(BaseModel):
    """What to verify: all issues of a packet, or some by fingerprint."""

    packet_id: Annotated[str | None, Field(description="This or `fingerprints`.")] = None
    fingerprints: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    since_minutes: Annotated[int, Field(ge=1, le=43_200)] | None = 60
    until: Annotated[Time | None, Field(description="The end of the window; now when absent.")] = None
    environment: Annotated[
        Annotated[str, Field(min_length=1, max_length=256)] | None,
        Field(description="With fingerprints only; a packet brings its own."),
    ] = None


class VerifiedIssue(BaseModel):
    """What the new window says of one issue. `baseline_count` of `baseline_exposure` is what the packet told."""

    fingerprint: str
    title: str | None
    verdict: Verdict
    trend: Trend | None
    count: Count
    exposure: Count
    baseline_count: Count
    baseline_exposure: Count
    needed_exposure: Annotated[Count, Field(description="Records without the issue that are missing to call it fixed.")]
    evidence_ids: RecordIds
    reason: Annotated[
        Doubt | None,
        Field(description="Why nothing can be said; absent otherwise."),
    ] = None


class NewIssue(Issue):
    """An issue that neither the packet nor the ledger knows."""

    verdict: Literal["new"]


class BaselineWindow(BaseModel):
    """What was compared with: the baseline of the packet."""

    since: Time
    until: Time


class VerdictCounts(BaseModel):
    """How many issues have each verdict."""

    fixed: Count
    regressed: Count
    ongoing: Count
    unverified: Count
    new: Count


class Verification(OkBody):
    """A verdict for each issue, in the packet's order."""

    packet_id: str | None
    window: Window
    baseline: BaselineWindow
    results: list[VerifiedIssue]
    new_issues: Annotated[list[NewIssue], Field(description="The worst 100; `summary` counts all.")]
    summary: VerdictCounts


# The manifest of a run ----------------------------------------------------------------------------------------------
class EvalCandidate(BaseModel):
    """A case to evaluate by: what shall not happen again, and where it did."""

    fingerprint: str
    name: str
    evidence_ids: RecordIds
    expectation: str


class PatchStep(BaseModel):
    """What to do about an issue."""

    fingerprint: str
    step: Annotated[int, Field(ge=1)]
    next_action: str


class Approval(BaseModel):
    """Whether a person said yes. A run that writes outside before that is out of bounds."""

    required: Literal[True]
    approved: bool
    approved_by: str | None


class ImprovementPacket(BaseModel):
    """What `lifesign diagnose --out` writes: a packet, and what follows from it for whoever mends what it found."""

    schema_: Annotated[Literal["improvement-packet/1"], Field(alias="schema")]
    run_id: str
    project_id: str
    packet_id: PacketId
    created_at: Time
    packet: DiagnosisPacket
    eval_candidates: list[EvalCandidate]
    patch_plan: list[PatchStep]
    approval: Approval


# Overviews ----------------------------------------------------------------------------------------------------------
class DashboardProject(BaseModel):
    """The project that the key belongs to. `plan` and `expires_at` are null when it stays for good."""

    project_id: str
    project_name: str
    tenant_id: str
    plan: str | None
    expires_at: Time | None
    graduated: bool


class DashboardQuota(BaseModel):
    """Distinct records of this calendar month (UTC). `limit` 0: any number, and `remaining` is null."""

    limit: Count
    used: Count
    remaining: Count | None
    resets_at: Time


class DashboardTotals(BaseModel):
    """Of the last 24 hours. Tokens and cost are those of the sessions that were active."""

    records: Count
    failures: Count
    sessions: Count
    traces: Count
    tokens: Tokens
    cost_usd: float | None


class DashboardStore(BaseModel):
    """Where the records are."""

    kind: Literal["sqlite", "postgresql", "clickhouse"]
    oldest_received_at: Time | None
    pending_records: Count


class DashboardLinks(BaseModel):
    """Where to go from here."""

    ingest: str
    diagnose: str
    telemetry: str
    sessions: str
    report: str
    docs: str


class LatestPacket(BaseModel):
    """The newest packet in short. issues: how many it lists."""

    packet_id: PacketId
    status: Literal["ready_for_issue_diagnosis", "observe_more"]
    created_at: Time
    since_minutes: Count
    telemetry_read: Count
    failures: Count
    issues: Count


class Dashboard(OkBody):
    """A project at a glance, over the last 24 hours."""

    project: DashboardProject
    quota: DashboardQuota
    window: Window
    totals: DashboardTotals
    failures_by_signal: dict[str, int]
    sessions_by_outcome: dict[Outcome, int]
    top_issues: Annotated[list[Issue], Field(description="The first five of the latest packet.")]
    latest_packet: LatestPacket | None
    recent_sessions: list[Session]
    store: DashboardStore
    links: DashboardLinks
