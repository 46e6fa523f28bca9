"""The tables of schema `fer` that SQLAlchemy Core reads and writes row by row.

The migrations define the schema; these are the tables that Python refers to. The partitioned
tables are not among them: they are used in the `.sql` files only, by statements over many images.
A test compares columns, types and keys with the migrated schema.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

METADATA = sa.MetaData(schema="fer")

_AT = sa.TIMESTAMP(timezone=True)
_ID = sa.Text(collation="C")

facility = sa.Table(
    "facility",
    METADATA,
    sa.Column("facility_id", _ID, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    sa.Column("image_kind", sa.Text, nullable=False),
    sa.Column("key_template", ARRAY(sa.Text), nullable=False),
    sa.Column("bucket", sa.Text),
    sa.Column("expected_images_min", sa.Integer, nullable=False),
    sa.Column("closed_weekdays", ARRAY(sa.Text), nullable=False),
    sa.Column("permission_purpose", sa.Text),
    sa.Column("permission_lawful_basis", sa.Text),
    sa.Column("permission_approved_by", sa.Text),
    sa.Column("permission_valid_until", sa.Date),
    sa.Column("is_in_registry", sa.Boolean, nullable=False),
    sa.Column("updated_at", _AT, nullable=False),
    sa.Column("target_rate", sa.Double),
    sa.Column("publish_period", sa.Text, nullable=False),
    sa.Column("key_order", sa.Text, nullable=False),
    sa.Column("design_effect", sa.Double, nullable=False),
    sa.Column("name_template", sa.Text),
    sa.Column("name_clock", sa.Text, nullable=False),
    sa.Column("day_clock", sa.Text, nullable=False),
    sa.Column("include", ARRAY(sa.Text), nullable=False),
    sa.Column("exclude", ARRAY(sa.Text), nullable=False),
    sa.Column("empty_days", sa.Text, nullable=False),
    sa.Column("group_name", sa.Text),
    sa.Column("audience", ARRAY(sa.Text), nullable=False),
    sa.Column("jurisdiction", sa.Text),
    sa.Column("permission_notice_day", sa.Date),
    sa.Column("permission_assessment_day", sa.Date),
)

model_version = sa.Table(
    "model_version",
    METADATA,
    sa.Column("model_version", _ID, primary_key=True),
    sa.Column("manifest", JSONB, nullable=False),
    sa.Column("card", JSONB, nullable=False),
    sa.Column("registered_at", _AT, nullable=False),
)

cnn = sa.Table(
    "cnn",
    METADATA,
    sa.Column("cnn_sha256", _ID, primary_key=True),
    sa.Column("artifact_sha256", _ID, nullable=False),
    sa.Column("card", JSONB, nullable=False),
    sa.Column("artifact", sa.LargeBinary, nullable=False),
    sa.Column("registered_at", _AT, nullable=False),
)

cnn_promotion = sa.Table(
    "cnn_promotion",
    METADATA,
    sa.Column("promotion_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("cnn_sha256", _ID, nullable=False),
    sa.Column("is_rollback", sa.Boolean, nullable=False),
    sa.Column("promoted_by", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("promoted_at", _AT, nullable=False),
)

batch = sa.Table(
    "batch",
    METADATA,
    sa.Column("facility_id", _ID, primary_key=True),
    sa.Column("capture_day", sa.Date, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("images_listed", sa.BigInteger),
    sa.Column("bytes_listed", sa.BigInteger),
    sa.Column("listed_at", _AT),
    sa.Column("attempted_at", _AT, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("objects_excluded", sa.BigInteger),
    sa.Column("images_late", sa.BigInteger, nullable=False),
)

retention = sa.Table(
    "retention",
    METADATA,
    sa.Column("before_day", sa.Date, primary_key=True),
    sa.Column("set_by", sa.Text, nullable=False),
    sa.Column("set_at", _AT, nullable=False),
    sa.Column("kind", sa.Text, primary_key=True),
)

deletion = sa.Table(
    "deletion",
    METADATA,
    sa.Column("deletion_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("facility_id", _ID),
    sa.Column("capture_day", sa.Date, nullable=False),
    sa.Column("key_hmac", sa.LargeBinary),
    sa.Column("images", sa.BigInteger, nullable=False),
    sa.Column("faces", sa.BigInteger, nullable=False),
    sa.Column("deleted_by", sa.Text, nullable=False),
    sa.Column("deleted_at", _AT, nullable=False),
    sa.Column("secret_check", sa.LargeBinary),
)

run = sa.Table(
    "run",
    METADATA,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("began_at", _AT, nullable=False),
    sa.Column("model_version", _ID),
)

satisfaction_summary = sa.Table(
    "satisfaction_summary",
    METADATA,
    sa.Column("facility_id", _ID, primary_key=True),
    sa.Column("capture_day", sa.Date, primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("model_version", _ID, nullable=False),
    sa.Column("time_zone", sa.Text, nullable=False),
    sa.Column("images", sa.BigInteger, nullable=False),
    sa.Column("images_scored", sa.BigInteger, nullable=False),
    sa.Column("images_pending", sa.BigInteger, nullable=False),
    sa.Column("not_scored", JSONB, nullable=False),
    sa.Column("faces", sa.BigInteger, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("is_complete", sa.Boolean, nullable=False),
    sa.Column("is_below_expected", sa.Boolean, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("created_at", _AT, nullable=False),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("first_day", sa.Date, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("target_rate", sa.Double),
    sa.Column("faces_scored", sa.BigInteger, nullable=False),
    sa.Column("called_happy", sa.BigInteger),
    sa.Column("called_sad", sa.BigInteger),
    sa.Column("called_neither", sa.BigInteger),
    sa.Column("happy_rate", sa.Double),
    sa.Column("happy_rate_low", sa.Double),
    sa.Column("happy_rate_high", sa.Double),
    sa.Column("sad_rate", sa.Double),
    sa.Column("sad_rate_low", sa.Double),
    sa.Column("sad_rate_high", sa.Double),
    sa.Column("neither_rate", sa.Double),
    sa.Column("called_happy_rate", sa.Double),
    sa.Column("called_happy_rate_low", sa.Double),
    sa.Column("called_happy_rate_high", sa.Double),
    sa.Column("called_sad_rate", sa.Double),
    sa.Column("called_sad_rate_low", sa.Double),
    sa.Column("called_sad_rate_high", sa.Double),
    sa.Column("sessions", sa.BigInteger),
    sa.Column("sessions_effective", sa.Double),
    sa.Column("faces_effective", sa.Double),
    sa.Column("design_effect", sa.Double),
    sa.Column("session_rule", sa.Text),
    sa.Column("faces_needed", sa.BigInteger),
    sa.Column("benchmark_weight", sa.Double),
    sa.Column("totals", JSONB(none_as_null=True)),
    sa.Column("former_figures", JSONB(none_as_null=True)),
    sa.Column("hours", JSONB(none_as_null=True)),
    sa.Column("cameras", JSONB(none_as_null=True)),
    sa.Column("audit_id", sa.BigInteger),
    sa.Column("audit_labels", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
)

satisfaction_change = sa.Table(
    "satisfaction_change",
    METADATA,
    sa.Column("facility_id", _ID, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("capture_day", sa.Date, primary_key=True),
    sa.Column("comparison", sa.Text, primary_key=True),
    sa.Column("happy_change", sa.Double, nullable=False),
    sa.Column("happy_change_low", sa.Double, nullable=False),
    sa.Column("happy_change_high", sa.Double, nullable=False),
    sa.Column("happy_p_value", sa.Double, nullable=False),
    sa.Column("happy_q_value", sa.Double),
    sa.Column("sad_change", sa.Double, nullable=False),
    sa.Column("sad_change_low", sa.Double, nullable=False),
    sa.Column("sad_change_high", sa.Double, nullable=False),
    sa.Column("sad_p_value", sa.Double, nullable=False),
    sa.Column("sad_q_value", sa.Double),
    sa.Column("run_id", sa.Text, nullable=False),
)

finding = sa.Table(
    "finding",
    METADATA,
    sa.Column("finding_id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("facility_id", _ID, nullable=False),
    sa.Column("check_name", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("severity", sa.Text, nullable=False),
    sa.Column("meaning", sa.Text, nullable=False),
    sa.Column("closing_rule", sa.Text, nullable=False),
    sa.Column("first_day", sa.Date, nullable=False),
    sa.Column("last_day", sa.Date, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("opened_at", _AT, nullable=False),
    sa.Column("acknowledged_at", _AT),
    sa.Column("acknowledged_by", sa.Text),
    sa.Column("acknowledged_comment", sa.Text),
    sa.Column("closed_at", _AT),
    sa.Column("closed_by", sa.Text),
    sa.Column("closed_comment", sa.Text),
)

finding_day = sa.Table(
    "finding_day",
    METADATA,
    sa.Column("finding_id", sa.BigInteger, primary_key=True),
    sa.Column("capture_day", sa.Date, primary_key=True),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("found_at", _AT, nullable=False),
)

checked_day = sa.Table(
    "checked_day",
    METADATA,
    sa.Column("facility_id", _ID, primary_key=True),
    sa.Column("capture_day", sa.Date, primary_key=True),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("checked_at", _AT, nullable=False),
)
