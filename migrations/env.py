"""Alembic's environment.

The connection is handed over by `rasura.registry._storage.database.schema`, already inside a transaction.

There is no ini file and no URL here: who may open which database is the registry's business.
"""

from alembic import context

from rasura.registry._storage.database.tables import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    compare_type=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
