"""Run the migrations on the connection that `fer_batch.database.schema.upgrade` opened.

That connection already holds the upgrade's lock and its transaction, so that all migrations and
views of one upgrade are committed together or not at all. There is no alembic.ini; the schema is
plain SQL, so there is no autogenerate either.
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema="fer",
    version_table="schema_version",
)
with context.begin_transaction():
    context.run_migrations()
