"""Alembic's entry: runs on the connection and in the transaction that `db.migrate` opened."""

from alembic import context

from lifesign.telemetry.stores.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
