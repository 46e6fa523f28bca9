"""Record erased images by an HMAC of their key, with a secret that the database does not have.

Existing records are converted, for which `schema.upgrade` passes the secret as an attribute of
Alembic's configuration. Without it, a database that has such records is not upgraded. The SQL
statements are in `0015_erasure_secret.sql` beside this file.
"""

from __future__ import annotations

from pathlib import Path

from alembic import context, op

from fer_batch.database.erased_keys import CREATE_HINT, NO_SECRET, ErasureSecret
from fer_batch.errors import ErasureSecretError

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Convert the records of erased images.

    The SQL runs without parameters, so that the driver does not interpret `%` and `:`.
    """
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    connection = op.get_bind()
    secret: ErasureSecret = context.config.attributes.get("erasure_secret", NO_SECRET)
    rows = connection.exec_driver_sql(
        "SELECT deletion_id, key_sha256 FROM fer.deletion WHERE kind = 'image'"
    ).all()
    if rows and secret.check is None:
        raise ErasureSecretError(
            f"the records of {len(rows)} erased images cannot be converted: FER_ERASURE_SECRET is "
            "not set, and nothing was changed",
            CREATE_HINT,
        )
    connection.exec_driver_sql(
        "CREATE TEMPORARY TABLE converted_key"
        " (deletion_id bigint, key_hmac bytea, secret_check bytea) ON COMMIT DROP"
    )
    if rows:
        connection.exec_driver_sql(
            "INSERT INTO pg_temp.converted_key VALUES (%s, %s, %s)",
            [
                (row.deletion_id, secret.hash_digest(bytes(row.key_sha256)), secret.check)
                for row in rows
            ],
        )
    connection.execution_options(no_parameters=True).exec_driver_sql(statements)
