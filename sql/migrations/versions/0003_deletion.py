"""What was deleted for good, by retention and by erasure, so that no run brings it back.

The statements stand in `0003_deletion.sql` beside this file, as SQL.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL as it stands: no parameters, so `%` and `:` mean nothing to the driver."""
    statements = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(statements)
