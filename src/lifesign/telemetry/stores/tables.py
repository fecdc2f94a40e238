"""The tables of records. Narrow and counted in `spans`, looked at one by one in `span_bodies`.

In a SQLite file of their own; on PostgreSQL in the schema `telemetry`, which the connections have as their search path.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, Table, Text

metadata = MetaData()

# Compared by code point, as SQLite does it and as pages are told apart; the rules of a language would differ.
_Word = Text().with_variant(Text(collation="C"), "postgresql")
_Id = BigInteger().with_variant(Integer(), "sqlite")

# A small number for each project, so that it costs a byte or two in every row and index.
span_projects = Table(
    "span_projects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", _Word, nullable=False, unique=True),
    # Ids are never given twice: a row that is late must not mean something else.
    sqlite_autoincrement=True,
)

# Every text that records repeat, once: names, and resources with their scope as JSON.
strings = Table(
    "strings",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project", Integer, nullable=False),
    # The text itself when it is short, else its beginning and its SHA-256.
    Column("key", _Word, nullable=False),
    # Null when the key is the text.
    Column("text", Text),
    # Day since 1970 of the last arrival that names it: gone once everything of that day is.
    Column("used_on", Integer, nullable=False),
    Index("uq_strings_key", "project", "key", unique=True),
    Index("ix_strings_used_on", "used_on"),
    sqlite_autoincrement=True,
)

spans = Table(
    "spans",
    metadata,
    # In the order of arrival.
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("project", Integer, nullable=False),
    Column("trace_id", LargeBinary, nullable=False),
    Column("span_id", LargeBinary, nullable=False),
    Column("parent_id", LargeBinary),
    Column("received_at", BigInteger, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    # Places in the tuples of `codes`.
    Column("kind", SmallInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("signal_type", SmallInteger, nullable=False),
    Column("op_hash", BigInteger, nullable=False),
    Column("args_hash", BigInteger),
    Column("result_hash", BigInteger),
    Column("bucket", Integer, nullable=False),
    Column("attempt", Integer),
    Column("flags", Integer, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cache_read_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    # 10^-9 USD.
    Column("cost_nano", BigInteger),
    # Of `sessions`; null: that of the trace counts.
    Column("own_session", BigInteger),
    # Of `strings`.
    Column("operation", BigInteger, nullable=False),
    Column("agent", BigInteger),
    Column("service", BigInteger),
    Column("tool", BigInteger),
    Column("model", BigInteger),
    Column("environment", BigInteger),
    Column("version", BigInteger),
    Column("error_type", BigInteger),
    Column("finish_reason", BigInteger),
    Column("origin", BigInteger, nullable=False),
    Index("uq_spans_identity", "project", "trace_id", "span_id", unique=True),
    Index("ix_spans_arrival", "project", "received_at"),
)
Index(
    "ix_spans_own_session",
    spans.c.own_session,
    sqlite_where=spans.c.own_session.is_not(None),
    postgresql_where=spans.c.own_session.is_not(None),
)

span_bodies = Table(
    "span_bodies",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    # JSON of records.Body.
    Column("body", LargeBinary, nullable=False),
)

# What each append stored of each environment, by columns: see `digests`.
span_digests = Table(
    "span_digests",
    metadata,
    # Of its first span.
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("project", Integer, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    # Of `strings`.
    Column("environment", BigInteger),
    # digests.VERSION.
    Column("version", SmallInteger, nullable=False),
    Column("records", Integer, nullable=False),
    # digests.Digest.
    Column("columns", LargeBinary, nullable=False),
    # How many there are is asked before they are read.
    Index("ix_span_digests_arrival", "project", "received_at", "version", "environment", "records"),
)

# What left a session and went to another after it was stored, since its trace was named by a later span: digests go on
# telling of the session as it was then, and these put that right. Of each arrival and environment.
span_moves = Table(
    "span_moves",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project", Integer, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    # Of `strings`.
    Column("environment", BigInteger),
    Column("agent", BigInteger),
    # What is below is less than nothing in the session that was left.
    Column("session", BigInteger, nullable=False),
    Column("records", Integer, nullable=False),
    # Those of them whose session is called like their trace.
    Column("unnamed", Integer, nullable=False),
    # Of llm and embedding with tokens, and the sum of these: how often 2^32, and the rest.
    Column("metered", Integer, nullable=False),
    Column("tokens_high", BigInteger, nullable=False),
    Column("tokens_low", BigInteger, nullable=False),
    Index("ix_span_moves_arrival", "project", "received_at"),
)

# Every trace that has a span here, and the session of its spans without one of their own.
traces = Table(
    "traces",
    metadata,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("trace_id", LargeBinary, primary_key=True),
    Column("session", BigInteger, nullable=False),
    # Of the span that named the session, see sessions.Rank; null: none did, and it is called like the trace.
    Column("rank", _Word),
    Index("ix_traces_session", "session"),
    sqlite_with_rowid=False,
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("project", Integer, nullable=False),
    Column("session_id", _Word, nullable=False),
    # Records in it; with none it is deleted.
    Column("turns", Integer, nullable=False),
    Column("last_received_at", BigInteger, nullable=False),
    # One more with each change.
    Column("version", Integer, nullable=False),
    # JSON of sessions.Summary, worked out when somebody reads it; null after a change.
    Column("summary", Text),
    Index("uq_sessions_session_id", "project", "session_id", unique=True),
    Index("ix_sessions_activity", "project", "last_received_at", "session_id"),
    sqlite_autoincrement=True,
)

# From which environments its records come, and how many from each.
session_environments = Table(
    "session_environments",
    metadata,
    Column("session", BigInteger, primary_key=True, autoincrement=False),
    Column("environment", BigInteger, primary_key=True, autoincrement=False),
    Column("turns", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# Other ids that its records have, and how many have each.
session_aliases = Table(
    "session_aliases",
    metadata,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("alias", _Word, primary_key=True),
    Column("session", BigInteger, primary_key=True, autoincrement=False),
    Column("turns", Integer, nullable=False),
    Index("ix_session_aliases_session", "session"),
    sqlite_with_rowid=False,
)

# Records that were charged, by month (202611); deleting records gives nothing back.
usage = Table(
    "usage",
    metadata,
    Column("project", Integer, primary_key=True, autoincrement=False),
    Column("month", Integer, primary_key=True, autoincrement=False),
    Column("used", BigInteger, nullable=False),
)
