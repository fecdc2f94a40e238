"""The database: the only queue, and the only thing that survives a crash.

`Database.read(fn, ...)` runs a sync function of a connection on a reader; `Database.write(fn, ...)` returns once its
transaction is durable. The tables are in `schema`, their history in `migrations`. Spec "Engine", sections 2 and 8.
"""

from lifesign.db.database import Database, ReadersBusy, StorageUnavailable, WriterBusy, is_writing
from lifesign.db.open import open_database

__all__ = ["Database", "ReadersBusy", "StorageUnavailable", "WriterBusy", "is_writing", "open_database"]
