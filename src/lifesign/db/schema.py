"""Every table, for SQLite and PostgreSQL alike.

Instants are epoch milliseconds, durations milliseconds, booleans 0/1, JSON is text. No foreign keys point at
`heartbeats`: history outlives a deleted heartbeat. A change here needs a migration beside it.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

metadata = MetaData()

# Slice `projects` ---------------------------------------------------------------------------------------------------
projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    # What it can be asked for by besides its id; of a self-service project its id, as many may be called the same.
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    # When a server made (or was given) the admin key of the first start.
    Column("started_at", BigInteger),
    # Told of what nobody else was reached for.
    Column("fallback_channel_id", Text),
    # `sandbox`: those that made themselves.
    Column("tenant_id", Text, nullable=False, server_default="default"),
    # What people call it, as they wrote it; null: its name.
    Column("title", Text),
    # `sandbox` while it expires; null: it is there for good.
    Column("plan", Text),
    Column("expires_at", BigInteger),
    # Distinct records a month; 0: any number.
    Column("quota_spans", BigInteger, nullable=False, server_default="0"),
    # Nobody gets in any more, and the loop `prune` erases what it had.
    Column("deleted_at", BigInteger),
)
for _column in (projects.c.expires_at, projects.c.deleted_at):
    Index(
        f"ix_projects_{_column.name}", _column, sqlite_where=_column.is_not(None), postgresql_where=_column.is_not(None)
    )

# Under which name a project can be found again by whoever has one of its keys.
project_names = Table(
    "project_names",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    # Empty: none was named.
    Column("operator_key", Text, primary_key=True),
    Column("name_key", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Index("ix_project_names_project", "project_id"),
)

# What counts against a limit of so many within the last hour, over all nodes; older rows are deleted.
limited_calls = Table(
    "limited_calls",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("limiter", Text, nullable=False),
    Column("network", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_limited_calls_network", "limiter", "network", "at"),
    Index("ix_limited_calls_at", "limiter", "at"),
)

# Slice `auth` -------------------------------------------------------------------------------------------------------
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("is_bootstrap", SmallInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    # producer, agent: a key that a project was made with; null: any other.
    Column("kind", Text),
    Column("plan", Text),
    # Kept, so that whoever still uses it learns why it does not work.
    Column("revoked_at", BigInteger),
    Index("ix_api_keys_project", "project_id", "id"),
)

# Keys of the Vitals API, which people take themselves. They are never deleted: those that were revoked still count.
vitals_keys = Table(
    "vitals_keys",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    # As it was written; who it is, is its identity.
    Column("email", Text, nullable=False),
    Column("email_identity", Text, nullable=False),
    # Which of the keys that an address may have: 1, 2, 3.
    Column("slot", Integer, nullable=False),
    Column("company", Text),
    Column("use_case", Text),
    # SHA-256, in hexadecimal.
    Column("hash", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_used_at", BigInteger),
    Column("request_count", BigInteger, nullable=False, server_default="0"),
    Column("revoked_at", BigInteger),
    Index("uq_vitals_keys_hash", "hash", unique=True),
    Index("uq_vitals_keys_slot", "email_identity", "slot", unique=True),
    # No id is given out twice, whatever is deleted with a project.
    sqlite_autoincrement=True,
)

# How many keys the operator lets an address have, where that is not the usual number.
vitals_allowances = Table(
    "vitals_allowances",
    metadata,
    Column("email_identity", Text, primary_key=True),
    Column("keys", Integer, nullable=False),
)

# Slice `web` --------------------------------------------------------------------------------------------------------
users = Table(
    "users",
    metadata,
    Column("id", Text, primary_key=True),
    # Case folded: what people sign in with.
    Column("email", Text, nullable=False, unique=True),
    # argon2id; null: none was chosen yet.
    Column("password_hash", Text),
    Column("created_at", BigInteger, nullable=False),
)

# Who may do what in which project: owner, editor, viewer.
memberships = Table(
    "memberships",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("project_id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_memberships_project", "project_id"),
)

user_sessions = Table(
    "user_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    # SHA-256 of what the cookie holds.
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("user_id", Text, nullable=False),
    Column("browser", Text, nullable=False),
    # Which project the pages show; not `project_id`: the session outlives the project.
    Column("shows_project_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_user_sessions_user", "user_id", "id"),
    Index("ix_user_sessions_expires_at", "expires_at"),
)

# Links that let a password be chosen, once. user_id null: the one of the first start, which makes the owner.
password_links = Table(
    "password_links",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("user_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("used_at", BigInteger),
    Index("ix_password_links_user", "user_id"),
)

# Wrong passwords of the last hour, by whom they count against: an account or a network.
sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("subject", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_sign_in_failures_subject", "subject", "at"),
    Index("ix_sign_in_failures_at", "at"),
)

# Who somebody is at an OpenID provider; an address of e-mail can go to somebody else there, a subject cannot.
identities = Table(
    "identities",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("uq_identities_user", "user_id", "issuer", unique=True),
)

# Ways back from an OpenID provider that were taken, each of which can be taken once.
spent_states = Table(
    "spent_states",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Index("ix_spent_states_at", "at"),
)

# Pages that everybody may see, of heartbeats that somebody chose.
status_pages = Table(
    "status_pages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("is_on", Integer, nullable=False),
    # JSON array of ids, in the order in which they are shown.
    Column("heartbeats", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
    Index("uq_status_pages_slug", "slug", unique=True),
    Index("ix_status_pages_project", "project_id", "id"),
)

# Slice `audit` ------------------------------------------------------------------------------------------------------
# Who wrote what: one line for each request that changed something.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    # Of the user or the key; the name is that of the moment, so that it can be read when they are gone.
    Column("actor_id", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("path", Text, nullable=False),
    Index("ix_audit_log_project", "project_id", "seq"),
    Index("ix_audit_log_actor", "project_id", "actor", "seq"),
    Index("ix_audit_log_at", "at"),
)

# Slice `heartbeats` -------------------------------------------------------------------------------------------------
heartbeats = Table(
    "heartbeats",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("slug", Text),
    Column("mode", Text, nullable=False),
    Column("interval_ms", BigInteger),
    Column("schedule", Text),
    Column("timezone", Text, nullable=False),
    Column("grace_ms", BigInteger, nullable=False),
    Column("policy_id", Text),
    Column("own_channels", Text),
    Column("namespace", Text),
    Column("description", Text),
    Column("tags", Text),
    Column("metadata", Text),
    Column("is_sticky_pause", SmallInteger, nullable=False),
    # name and slug, case folded: what `q` searches.
    Column("search", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("is_armed", SmallInteger, nullable=False),
    # The moment the current wait began; deadlines are computed from it.
    Column("anchor_at", BigInteger, nullable=False),
    Column("last_checkin_at", BigInteger),
    Column("checkin_count", BigInteger, nullable=False),
    Column("next_deadline", BigInteger),
    Column("fires_at", BigInteger),
    Column("armed_at", BigInteger),
    # A lower bound of fires_at; written seldom, so that a check-in touches no index.
    Column("check_at", BigInteger),
    Column("incident_id", Text),
    Column("paused_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
    # How often it fired lately, as of `flap_at`: each firing adds 1, and it halves every 15 minutes.
    Column("flap_penalty", Float, nullable=False, server_default="0"),
    Column("flap_at", BigInteger),
    Column("is_flapping", SmallInteger, nullable=False, server_default="0"),
    # The incident with which the present spell of flapping began.
    Column("flap_incident_id", Text),
    # Fires only when so many of the last `tolerance_window` results are bad; null: at the first.
    Column("tolerance_failures", Integer),
    Column("tolerance_window", Integer),
    # Those last results, oldest first, `b` for bad and `g` for good; null while none is bad.
    Column("results", Text),
    Column("snoozed_until", BigInteger),
    Column("snooze_reason", Text),
    # The incident with which the snooze ends; null: it ends at its time.
    Column("snooze_incident_id", Text),
    # Ids as JSON; the table `dependencies` is their index.
    Column("depends_on", Text),
    # The earliest lease or limit of its watched runs.
    Column("run_due_at", BigInteger),
    # `system <id>`: what it belongs to, and what alone may check it in.
    Column("managed_by", Text),
    # Whoever knows this UUID may ping it; null where only its owner reports.
    Column("ping_id", Text),
    # What is told of it to those who may only read: made from `ping_id`, which it does not give away.
    Column("unique_key", Text),
    # A UUID under which anybody may see its badge.
    Column("badge_id", Text),
    # Which pings count, and for what, as JSON; null: all, as they say.
    Column("ping_rules", Text),
    # Pings that are no check-ins: starts, log lines, ignored ones.
    Column("ping_extras", BigInteger, nullable=False, server_default="0"),
    # The open run that a ping began, when the last of them began, and how long the last one took that ended.
    Column("ping_run_id", Text),
    Column("ping_started_at", BigInteger),
    Column("last_duration_ms", BigInteger),
    # Who made it, in the words of who did; `apply` is what an apply may take away again. As in the other tables.
    Column("origin", Text),
    # When its owner expects the next check-in, whatever its interval; null: the interval says.
    Column("expected_at", BigInteger),
    # While it is paused: whether what it belongs to may not report, and alone ends the pause.
    Column("is_suspended", SmallInteger, nullable=False, server_default="0"),
    Index("uq_heartbeats_ping_id", "ping_id", unique=True),
    Index("ix_heartbeats_unique_key", "unique_key"),
    Index("ix_heartbeats_badge_id", "badge_id"),
    Index("uq_heartbeats_slug", "project_id", "slug", unique=True),
    Index("ix_heartbeats_project", "project_id", "id"),
    Index("ix_heartbeats_status", "project_id", "status", "id"),
    Index("ix_heartbeats_namespace", "project_id", "namespace", "id"),
    # Room on each page for the next version of a row: PostgreSQL can then update in place (HOT).
    postgresql_with={"fillfactor": "70"},
)
Index(
    "ix_heartbeats_check_at",
    heartbeats.c.check_at,
    sqlite_where=heartbeats.c.check_at.is_not(None),
    postgresql_where=heartbeats.c.check_at.is_not(None),
)
Index(
    "ix_heartbeats_policy",
    heartbeats.c.policy_id,
    sqlite_where=heartbeats.c.policy_id.is_not(None),
    postgresql_where=heartbeats.c.policy_id.is_not(None),
)

# Which heartbeat is quiet while which other one fires.
dependencies = Table(
    "dependencies",
    metadata,
    Column("heartbeat_id", Text, primary_key=True),
    Column("depends_on_id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Index("ix_dependencies_depends_on", "depends_on_id", "heartbeat_id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("heartbeat_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_idempotency_keys_created", "created_at"),
)

# Slice `events` -----------------------------------------------------------------------------------------------------
events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("heartbeat_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_events_heartbeat", "heartbeat_id", "seq"),
)

# Slice `runs` -------------------------------------------------------------------------------------------------------
runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("heartbeat_id", Text, nullable=False),
    # The caller's, or `id`.
    Column("run_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("progress_at", BigInteger),
    Column("lease_ms", BigInteger),
    Column("lease_until", BigInteger),
    Column("limit_at", BigInteger),
    Column("finished_at", BigInteger),
    # Whether its lease and limit count; a pause ends that until its next progress.
    Column("is_watched", SmallInteger, nullable=False),
    Column("message", Text),
    Column("metadata", Text),
    Index("uq_runs_run_id", "heartbeat_id", "run_id", unique=True),
    Index("ix_runs_heartbeat", "heartbeat_id", "id"),
    # As of heartbeats: reports of progress change no column that an index holds, or that its condition names.
    postgresql_with={"fillfactor": "70"},
)
_is_open = runs.c.finished_at.is_(None)
_is_unlimited = _is_open & runs.c.lease_ms.is_(None) & runs.c.limit_at.is_(None)
Index("ix_runs_open", runs.c.heartbeat_id, runs.c.id, sqlite_where=_is_open, postgresql_where=_is_open)
Index("ix_runs_untouched", runs.c.started_at, sqlite_where=_is_unlimited, postgresql_where=_is_unlimited)

# Slice `maintenance` ------------------------------------------------------------------------------------------------
maintenance = Table(
    "maintenance",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("starts_at", BigInteger),
    Column("ends_at", BigInteger),
    # Or again and again: from each time of the schedule, for so long.
    Column("schedule", Text),
    Column("duration_ms", BigInteger),
    Column("timezone", Text, nullable=False),
    # heartbeats, namespaces, tags, all; and which, as JSON.
    Column("target", Text, nullable=False),
    Column("members", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
    Column("origin", Text),
    Index("ix_maintenance_project", "project_id", "id"),
)

# Slice `incidents` --------------------------------------------------------------------------------------------------
policies = Table(
    "policies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    # [{"channels": [...], "wait"?: seconds, "message"?: text}], as sent.
    Column("steps", Text, nullable=False),
    Column("repeat_last_step", SmallInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
    Column("origin", Text),
    Index("ix_policies_project", "project_id", "id"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("heartbeat_id", Text, nullable=False),
    Column("policy_id", Text),
    Column("reason", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("escalation", Text, nullable=False),
    Column("deadline_at", BigInteger),
    # The expected instant (deadline without grace), for messages and the event.
    Column("expected_at", BigInteger),
    Column("opened_at", BigInteger, nullable=False),
    Column("resolved_at", BigInteger),
    Column("resolved_by", Text),
    Column("ack_message", Text),
    Column("ack_actor", Text),
    Column("steps_run", Integer, nullable=False),
    Column("loop", Integer, nullable=False),
    Column("last_step_at", BigInteger),
    Column("unattended", Text),
    Column("next_seq", Integer, nullable=False),
    # The span in which no node listened, when the incident opened after a wait because of it.
    Column("blind_from", BigInteger),
    Column("blind_to", BigInteger),
    # Why no step runs for now: words, joined by blanks. `step_waiting`: 1: one would have run and does when all end;
    # 2: so would the first telling of the heartbeat's own channels.
    Column("holds", Text),
    Column("step_waiting", SmallInteger, nullable=False, server_default="0"),
    Column("storm_id", Text),
    # What acknowledges it by SMS.
    Column("ack_code", Text),
    # The run that opened it.
    Column("run_id", Text),
    # The firing heartbeat because of which nobody is told.
    Column("suppressed_by", Text),
    Index("ix_incidents_project", "project_id", "id"),
    Index("ix_incidents_heartbeat", "heartbeat_id", "id"),
)
Index(
    "uq_incidents_open",
    incidents.c.heartbeat_id,
    unique=True,
    sqlite_where=incidents.c.status != "resolved",
    postgresql_where=incidents.c.status != "resolved",
)
Index(
    "ix_incidents_open_policy",
    incidents.c.policy_id,
    sqlite_where=incidents.c.status != "resolved",
    postgresql_where=incidents.c.status != "resolved",
)
Index(
    "ix_incidents_ack_code",
    incidents.c.ack_code,
    sqlite_where=incidents.c.ack_code.is_not(None),
    postgresql_where=incidents.c.ack_code.is_not(None),
)

# Many heartbeats of one project that went silent together: people get one message instead of hundreds.
storms = Table(
    "storms",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    # When what is held back is told.
    Column("release_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
    # Incidents that belong to it, by now.
    Column("count", Integer, nullable=False),
    Index("ix_storms_closed", "closed_at"),
)
Index(
    "uq_storms_open",
    storms.c.project_id,
    unique=True,
    sqlite_where=storms.c.state == "open",
    postgresql_where=storms.c.state == "open",
)

timers = Table(
    "timers",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("subject_id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Index("ix_timers_due", "due_at"),
)

# Slice `channels` ---------------------------------------------------------------------------------------------------
channels = Table(
    "channels",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    # JSON; secret values are sealed (`channels.secrets`).
    Column("config", Text, nullable=False),
    Column("previous_secret", Text),
    Column("previous_until", BigInteger),
    Column("broken_reason", Text),
    Column("broken_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger),
    Column("origin", Text),
    Index("ix_channels_project", "project_id", "id"),
)

# One row per channel: `due_at` is a lower bound of the next moment it may have something to send.
lanes = Table(
    "lanes",
    metadata,
    Column("channel_id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("due_at", BigInteger),
    # The provider asked for a pause of the whole channel ("too many requests").
    Column("held_until", BigInteger),
    # closed, open (nothing is sent until `open_until`), half (one message tries).
    Column("breaker", Text, nullable=False, server_default="closed"),
    # Failures in a row.
    Column("fails", Integer, nullable=False, server_default="0"),
    Column("open_until", BigInteger),
    # Which limit of its provider it shares with other channels; none for types whose limit the settings name.
    Column("bucket_key", Text),
)
Index(
    "ix_lanes_due",
    lanes.c.due_at,
    sqlite_where=lanes.c.due_at.is_not(None),
    postgresql_where=lanes.c.due_at.is_not(None),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("idem_key", Text, nullable=False, unique=True),
    Column("incident_id", Text),
    Column("heartbeat_id", Text),
    Column("target", Text, nullable=False),
    Column("channel_id", Text, nullable=False),
    Column("dest", Text),
    Column("kind", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("loop", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", BigInteger),
    Column("lease_token", Integer, nullable=False),
    Column("called_at", BigInteger),
    Column("maybe_sent", SmallInteger, nullable=False),
    Column("has_failed", SmallInteger, nullable=False),
    # The incident or the channel is gone: an attempt on the wire must not be followed by another.
    Column("is_withdrawn", SmallInteger, nullable=False),
    Column("order_key", Text, nullable=False),
    Column("order_seq", Integer, nullable=False),
    Column("payload", Text, nullable=False),
    Column("provider_id", Text),
    Column("last_code", Text),
    Column("last_error", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("storm_id", Text),
    # The digest that tells what this one would have told.
    Column("bundle_id", Text),
    # Its incident is under a hold: it does not leave.
    Column("is_on_hold", SmallInteger, nullable=False, server_default="0"),
    Index("ix_notifications_order", "order_key", "order_seq"),
    Index("ix_notifications_incident", "incident_id"),
    Index("ix_notifications_project", "project_id", "id"),
    Index("ix_notifications_channel", "channel_id", "created_at"),
)
for _name, _columns, _where in (
    ("ix_notifications_pending", ("channel_id", "priority", "not_before"), notifications.c.status == "pending"),
    ("ix_notifications_lease", ("lease_until",), notifications.c.status == "sending"),
    ("ix_notifications_dead", ("finished_at",), notifications.c.status == "dead"),
    ("ix_notifications_held", ("storm_id",), notifications.c.status == "held"),
    ("ix_notifications_finished", ("finished_at",), notifications.c.finished_at.is_not(None)),
    ("ix_notifications_provider", ("provider_id",), notifications.c.provider_id.is_not(None)),
):
    Index(_name, *(notifications.c[column] for column in _columns), sqlite_where=_where, postgresql_where=_where)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("notification_id", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("outcome", Text),
    Column("http_status", Integer),
    Column("code", Text),
    Column("error", Text),
    Column("duration_ms", BigInteger),
    Index("ix_attempts_notification", "notification_id", "n"),
)

# How many messages may leave at once, for everything that shares a limit of its provider, over all nodes.
rate_buckets = Table(
    "rate_buckets",
    metadata,
    Column("key", Text, primary_key=True),
    Column("tokens", Float, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# What a provider called back about is answered the same when it calls again.
callbacks_seen = Table(
    "callbacks_seen",
    metadata,
    Column("id", Text, primary_key=True),
    Column("answer", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_callbacks_seen_at", "at"),
)

# Slice `bots` -------------------------------------------------------------------------------------------------------
# Credits are whole numbers of 1/10,000 credit.
bot_settings = Table(
    "bot_settings",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("stopped_at", BigInteger),
    Column("stop_reason", Text),
    # JSON of the rest; keys of providers are sealed.
    Column("options", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# Requests of a plan with limits, by the minute and by the day.
bot_calls = Table(
    "bot_calls",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("span_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("start", BigInteger, nullable=False),
    Column("calls", Integer, nullable=False),
)

bots = Table(
    "bots",
    metadata,
    # The integer that the API calls `id`; never given twice.
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("model", Text),
    Column("instruction", Text),
    Column("max_reply_tokens", Integer),
    Column("top", BigInteger),
    Column("is_online", SmallInteger, nullable=False),
    # The switch that the API calls `heartbeat`.
    Column("is_scheduling", SmallInteger, nullable=False),
    # JSON; the secret of a runner is sealed.
    Column("options", Text, nullable=False),
    # What was said before is forgotten.
    Column("reset_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_bots_project", "project_id", "number"),
    sqlite_autoincrement=True,
)

bot_members = Table(
    "bot_members",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("external_id", Text),
    Column("name", Text),
    Column("email", Text),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_bot_members_number", "project_id", "number", unique=True),
    Index("ix_bot_members_external", "project_id", "external_id", unique=True),
)

bot_schedules = Table(
    "bot_schedules",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("bot_id", Text, nullable=False),
    # Empty: of no member.
    Column("member_id", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    # SHA-256, for the index that keeps prompts apart.
    Column("prompt_hash", Text, nullable=False),
    Column("is_enabled", SmallInteger, nullable=False),
    Column("interval_minutes", Integer),
    Column("cron", Text),
    Column("timezone", Text, nullable=False),
    Column("window_start", Integer),
    Column("window_end", Integer),
    Column("days", Text, nullable=False),
    Column("budget", BigInteger),
    Column("max_errors", Integer, nullable=False),
    Column("options", Text, nullable=False),
    # The latest slot that was dealt with; never goes back.
    Column("last_slot", BigInteger),
    Column("next_slot", BigInteger),
    # When that slot is due, with its jitter; null: nothing is.
    Column("next_run_at", BigInteger),
    Column("version", BigInteger, nullable=False),
    Column("execution_count", BigInteger, nullable=False),
    Column("error_count", Integer, nullable=False),
    Column("last_executed_at", BigInteger),
    Column("last_status", Text),
    Column("last_error", Text),
    Column("paused_reason", Text),
    Column("paused_by", Text),
    Column("paused_at", BigInteger),
    # The heartbeat that watches it.
    Column("heartbeat_id", Text),
    # Of the latest error that people were told of, until a success is.
    Column("error_key", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_bot_schedules_prompt", "bot_id", "member_id", "prompt_hash", unique=True),
    Index("ix_bot_schedules_project", "project_id", "id"),
)
Index(
    "ix_bot_schedules_due",
    bot_schedules.c.next_run_at,
    sqlite_where=bot_schedules.c.next_run_at.is_not(None),
    postgresql_where=bot_schedules.c.next_run_at.is_not(None),
)

bot_runs = Table(
    "bot_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("bot_id", Text, nullable=False),
    Column("schedule_id", Text, nullable=False),
    Column("member_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("slot", BigInteger),
    Column("effective_at", BigInteger, nullable=False),
    # Of slots that are told in one row.
    Column("first_slot", BigInteger),
    Column("last_slot", BigInteger),
    Column("count", Integer, nullable=False),
    Column("missed_count", Integer, nullable=False),
    # Until when it waits for a place.
    Column("place_until", BigInteger),
    Column("prompt", Text, nullable=False),
    Column("runner", Text),
    Column("model", Text),
    Column("tools", Text),
    Column("response", Text),
    Column("error_message", Text),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    Column("duration_ms", BigInteger),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tool_calls", Integer, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("is_estimated", SmallInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    # Of the period that pays; null: not started.
    Column("period_start", BigInteger),
    Column("deadline_at", BigInteger),
    Column("lease_owner", Text),
    Column("lease_until", BigInteger),
    Column("lease_token", Integer, nullable=False),
    # Why it shall end, while it has not.
    Column("cancel_reason", Text),
    # SHA-256 of the token that an outside runner answers with.
    Column("token_hash", Text),
    Column("idem_key", Text),
    Column("notice", Text),
    Column("created_at", BigInteger, nullable=False),
    # While it waits for approval: until when.
    Column("parked_until", BigInteger),
    # What somebody decided about that; null: nobody has.
    Column("is_approved", SmallInteger),
    # What goes on afterwards, as its runner wrote it down.
    Column("parked", Text),
    Index("ix_bot_runs_bot", "bot_id", "id"),
    Index("ix_bot_runs_schedule", "schedule_id", "id"),
    Index("ix_bot_runs_created", "created_at"),
    Index("ix_bot_runs_project", "project_id", "created_at"),
)
for _name, _names, _where, _is_unique in (
    ("ix_bot_runs_slot", "schedule_id kind slot", bot_runs.c.slot.is_not(None), True),
    ("ix_bot_runs_idem", "schedule_id idem_key", bot_runs.c.idem_key.is_not(None), True),
    ("ix_bot_runs_token", "token_hash", bot_runs.c.token_hash.is_not(None), True),
    ("ix_bot_runs_queued", "effective_at", bot_runs.c.status == "queued", False),
    ("ix_bot_runs_lease", "lease_until", bot_runs.c.status == "running", False),
    ("ix_bot_runs_open", "schedule_id id", bot_runs.c.finished_at.is_(None), False),
    ("ix_bot_runs_parked", "parked_until", bot_runs.c.status == "waiting_approval", False),
):
    Index(
        _name,
        *(bot_runs.c[each] for each in _names.split()),
        unique=_is_unique,
        sqlite_where=_where,
        postgresql_where=_where,
    )

# What was said in a run: one row for each piece, as it comes.
bot_transcripts = Table(
    "bot_transcripts",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("project_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("entry", Text, nullable=False),
    Index("ix_bot_transcripts_at", "at"),
)

# Credits of each response of a model.
bot_ledger = Table(
    "bot_ledger",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project_id", Text, nullable=False),
    Column("bot_id", Text, nullable=False),
    Column("schedule_id", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("period_start", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("model", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Index("ix_bot_ledger_bot", "bot_id", "at"),
    Index("ix_bot_ledger_run", "run_id"),
)

bot_budget_periods = Table(
    "bot_budget_periods",
    metadata,
    Column("schedule_id", Text, primary_key=True),
    Column("period_start", BigInteger, primary_key=True, autoincrement=False),
    Column("project_id", Text, nullable=False),
    Column("period_end", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
)

# When people were last told of something, by its key.
bot_notices = Table(
    "bot_notices",
    metadata,
    Column("schedule_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# Whether providers could be reached lately, for all nodes.
bot_probes = Table(
    "bot_probes",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("is_reachable", SmallInteger, nullable=False),
    # Skips in a row.
    Column("skips", Integer, nullable=False),
)

# Slice `pings` ------------------------------------------------------------------------------------------------------
# What pings carried, by their number; only the newest of a heartbeat.
ping_bodies = Table(
    "ping_bodies",
    metadata,
    Column("heartbeat_id", Text, primary_key=True),
    Column("n", BigInteger, primary_key=True, autoincrement=False),
    Column("project_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# When a ping with a run id of the sender's came last, so that a repeat is known and a duration can be told.
ping_rids = Table(
    "ping_rids",
    metadata,
    Column("heartbeat_id", Text, primary_key=True),
    Column("rid", Text, primary_key=True),
    Column("signal", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_ping_rids_at", "at"),
)

# Slice `systems` ----------------------------------------------------------------------------------------------------
# When a system reported last stands in its heartbeat only.
systems = Table(
    "systems",
    metadata,
    # A UUID without a prefix: it is the user name of the machine.
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("fqdn", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("tags", Text),
    Column("interval_s", Integer),
    Column("heartbeat_id", Text, nullable=False),
    # SHA-256 in hex; null once deleted.
    Column("secret_hash", Text),
    Column("secret_hint", Text, nullable=False),
    # One more with each new secret: whoever remembers the old one finds out.
    Column("credential_version", Integer, nullable=False),
    Column("suspended_at", BigInteger),
    Column("deleted_at", BigInteger),
    Column("first_heartbeat", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # name, fqdn, key and id, case folded.
    Column("search", Text, nullable=False),
    Column("origin", Text),
    Index("ix_systems_project", "project_id", "created_at", "id"),
    postgresql_with={"fillfactor": "70"},
)

# Slice `inventory` --------------------------------------------------------------------------------------------------
inventory_snapshots = Table(
    "inventory_snapshots",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("system_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("document_bytes", BigInteger, nullable=False),
    Column("changes", Integer, nullable=False),
    # SHA-256 of the canonical form, without what may change without notice.
    Column("hash", LargeBinary, nullable=False),
    # The canonical form, zlib-compressed.
    Column("document", LargeBinary, nullable=False),
    Index("ix_inventory_snapshots_system", "system_id", "id"),
)

inventory_changes = Table(
    "inventory_changes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("system_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("op", Text, nullable=False),
    # JSON text, cut.
    Column("old", Text),
    Column("new", Text),
    Column("category", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Index("ix_inventory_changes_system", "system_id", "id"),
)

# Slice `diagnosis` --------------------------------------------------------------------------------------------------
packets = Table(
    "packets",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # The filter; empty: records of any environment.
    Column("environment", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    # JSON of the packet without its issues.
    Column("head", Text, nullable=False),
    # JSON of the packet to the byte, zlib-compressed.
    Column("body", LargeBinary, nullable=False),
    Index("ix_packets_project", "project_id", "id"),
    Index("ix_packets_created_at", "created_at"),
)

# What is known of an issue over all packets.
issue_ledger = Table(
    "issue_ledger",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("environment", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True),
    Column("ruleset", Text, nullable=False),
    Column("signal_type", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Column("last_packet_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("fixed_at", BigInteger),
    Column("fixed_version", Text),
    Column("regressed_at", BigInteger),
    Column("count", BigInteger, nullable=False),
    Column("exposure", BigInteger, nullable=False),
    # JSON array.
    Column("versions", Text, nullable=False),
    Index("ix_issue_ledger_seen", "project_id", "last_seen"),
)

# What people said of issues; the newest of a packet and a fingerprint holds.
issue_decisions = Table(
    "issue_decisions",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("project_id", Text, nullable=False),
    Column("packet_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("ix_issue_decisions_packet", "packet_id", "fingerprint", "seq"),
)

# From which severity on a diagnosis makes the managed heartbeat of the project fail.
diagnosis_alerts = Table(
    "diagnosis_alerts",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("heartbeat_id", Text, primary_key=True),
    Column("severity", Text, nullable=False),
)


# Slice `usage` ------------------------------------------------------------------------------------------------------
# Spans of time are named by the instant at which they begin. They lie in the order of time: a dashboard reads many of
# them at once.
def _requests_by(name: str, at: str) -> Table:
    return Table(
        name,
        metadata,
        Column(at, BigInteger, primary_key=True, autoincrement=False),
        Column("total", BigInteger, nullable=False),
        Column("client_errors", BigInteger, nullable=False),
        Column("server_errors", BigInteger, nullable=False),
        # Of those that have a duration; null while there are none.
        Column("duration_sum_ms", BigInteger, nullable=False),
        Column("duration_count", BigInteger, nullable=False),
        Column("duration_min_ms", BigInteger),
        Column("duration_max_ms", BigInteger),
        sqlite_with_rowid=False,
    )


def _durations_by(name: str, at: str) -> Table:
    return Table(
        name,
        metadata,
        Column(at, BigInteger, primary_key=True, autoincrement=False),
        Column("bin", Integer, primary_key=True, autoincrement=False),
        Column("count", BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


# The second of each pair has the same once more: a month of the first is too much to add up whenever somebody looks.
usage_minutes, usage_hours = _requests_by("usage_minutes", "minute"), _requests_by("usage_hours", "hour")
usage_latency, usage_latency_days = _durations_by("usage_latency", "hour"), _durations_by("usage_latency_days", "day")

usage_errors = Table(
    "usage_errors",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("error_type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
    Index("uq_usage_errors_message", "error_type", "message", unique=True),
    Index("ix_usage_errors_last_seen", "last_seen", "id"),
    sqlite_autoincrement=True,
)

# Slice `vitals` -----------------------------------------------------------------------------------------------------
measurements = Table(
    "measurements",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project_id", Text, nullable=False),
    # Of a key of the Vitals API; 0, which is none's, where it is a person's own.
    Column("key_id", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # JSON, without the traces it was made from.
    Column("report", Text, nullable=False),
    Column("user_id", Text),
    Index("ix_measurements_key", "key_id", "id"),
    Index("ix_measurements_created", "created_at"),
    Index("ix_measurements_user", "user_id", "project_id", "id"),
)

# Engine -------------------------------------------------------------------------------------------------------------
nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("alive_at", BigInteger, nullable=False),
    Column("version", Text, nullable=False),
)

# One row: the last span in which no node listened.
engine_state = Table(
    "engine_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("blind_from", BigInteger),
    Column("blind_to", BigInteger),
)
