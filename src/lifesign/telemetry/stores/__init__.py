"""The stores of records: SQL, in a SQLite file of its own or in PostgreSQL; and ClickHouse, in `clickhouse`.

Tables in `tables`, their history in `migrations`; `append` writes, `shares` counts what sessions have, `reads` and
`summaries` answer, `removal` deletes. Spec "Telemetry", section 8.
"""

from lifesign.telemetry.stores.open import open_store

__all__ = ["open_store"]
