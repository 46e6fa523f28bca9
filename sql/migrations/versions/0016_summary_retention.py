"""A retention horizon for summaries, beside that of the rows per image.

The SQL statements are in `0016_summary_retention.sql` beside this file.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL without parameters, so that the driver does not interpret `%` and `:`."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
