-- name: roles
-- The roles, which have no login: logins are members of them. `fer-batch db roles` creates and
-- repairs them, and grants exactly the privileges of this file; `fer-batch db upgrade` does so for
-- new tables and views. fer_owner owns the schema fer.
SELECT * FROM (VALUES
    ('fer_owner', true),
    ('fer_writer', true),
    ('fer_eraser', true),
    ('fer_retainer', true),
    ('fer_reader', true),
    ('fer_inspector', true)
) AS role (role_name, inherits);

-- name: memberships
-- Which role is a member of which. No role may grant a membership.
SELECT * FROM (VALUES
    ('fer_eraser', 'fer_writer', true, false),
    ('fer_inspector', 'fer_reader', true, false)
) AS membership (member, role_name, may_inherit, may_set);

-- name: privileges
-- All privileges of the roles, and no other role has any on the schema. `columns` limits a privilege
-- to these columns; '' is the whole object. No partition is named: a privilege on a partitioned
-- table includes them.
SELECT * FROM (VALUES
    ('DATABASE', '', 'fer_writer', 'CONNECT TEMPORARY', ''),
    ('DATABASE', '', 'fer_retainer', 'CONNECT', ''),
    ('DATABASE', '', 'fer_reader', 'CONNECT', ''),
    ('DATABASE', '', 'fer_owner', 'CONNECT TEMPORARY', ''),
    ('SCHEMA', 'fer', 'fer_writer', 'USAGE', ''),
    ('SCHEMA', 'fer', 'fer_retainer', 'USAGE', ''),
    ('SCHEMA', 'fer', 'fer_reader', 'USAGE', ''),

    -- The nightly job: rows per image may be replaced. Published summaries, the history of the CNNs
    -- and of deletions may not.
    ('TABLE', 'schema_version', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'facility', 'fer_writer', 'SELECT INSERT UPDATE', ''),
    ('TABLE', 'model_version', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'cnn', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'cnn_promotion', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'cnn_promotion', 'fer_writer', 'INSERT',
        'cnn_sha256 is_rollback promoted_by why'),
    ('TABLE', 'run', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'run', 'fer_writer', 'UPDATE', 'model_version'),
    ('TABLE', 'batch', 'fer_writer', 'SELECT INSERT UPDATE', ''),
    ('TABLE', 'image', 'fer_writer', 'SELECT INSERT UPDATE DELETE', ''),
    ('TABLE', 'image_result', 'fer_writer', 'SELECT INSERT UPDATE DELETE', ''),
    ('TABLE', 'face_result', 'fer_writer', 'SELECT INSERT DELETE', ''),
    ('TABLE', 'satisfaction_summary', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'satisfaction_change', 'fer_writer', 'SELECT INSERT DELETE', ''),
    ('TABLE', 'satisfaction_change', 'fer_writer', 'UPDATE', 'happy_q_value sad_q_value'),
    ('TABLE', 'finding', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'finding', 'fer_writer', 'UPDATE',
        'severity meaning closing_rule first_day last_day state acknowledged_at acknowledged_by'
        ' acknowledged_comment closed_at closed_by closed_comment'),
    ('TABLE', 'finding_day', 'fer_writer', 'SELECT INSERT DELETE', ''),
    ('TABLE', 'finding_day', 'fer_writer', 'UPDATE', 'details run_id'),
    ('TABLE', 'checked_day', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'checked_day', 'fer_writer', 'UPDATE', 'run_id checked_at'),
    ('TABLE', 'finished_night', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'digest_delivery', 'fer_writer', 'SELECT INSERT', ''),
    ('TABLE', 'digest_delivery', 'fer_writer', 'UPDATE', 'run_id sent_at'),
    ('TABLE', 'deletion', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'retention', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'audit', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'audit_face', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'audit_result', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'audit_label', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'satisfaction_daily', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'satisfaction_period', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'not_scored_daily', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'newest_complete_day', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'happy_by_hour', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'camera_daily', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'facility_public', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'change_public', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'finding_public', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'audit_public', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'erased_day', 'fer_writer', 'SELECT', ''),
    ('TABLE', 'schema_revision', 'fer_writer', 'SELECT', ''),
    ('FUNCTION', 'is_final', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'hits_many', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'unfinished_image', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'original_image', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'is_day_deleted', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'erased_images', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'alert_figure', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'image_outcome', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'ensure_partitions', 'fer_writer', 'EXECUTE', ''),
    ('FUNCTION', 'analyze_partitions', 'fer_writer', 'EXECUTE', ''),

    -- Erasure on request, beside what fer_writer may. Who erased and when is set by the database.
    ('TABLE', 'deletion', 'fer_eraser', 'INSERT',
        'kind facility_id capture_day key_hmac secret_check images faces'),
    ('TABLE', 'batch', 'fer_eraser', 'DELETE', ''),
    ('TABLE', 'checked_day', 'fer_eraser', 'DELETE', ''),
    ('TABLE', 'satisfaction_summary', 'fer_eraser', 'DELETE', ''),
    ('TABLE', 'audit_face', 'fer_eraser', 'DELETE', ''),

    -- Maintenance: it deletes what has expired, and reads only what it needs to find it.
    ('TABLE', 'schema_version', 'fer_retainer', 'SELECT', ''),
    ('TABLE', 'retention', 'fer_retainer', 'SELECT', ''),
    ('TABLE', 'retention', 'fer_retainer', 'INSERT', 'kind before_day'),
    ('TABLE', 'deletion', 'fer_retainer', 'SELECT', 'deletion_id'),
    ('TABLE', 'deletion', 'fer_retainer', 'INSERT', 'kind capture_day images faces'),
    ('TABLE', 'finding', 'fer_retainer', 'SELECT', 'finding_id facility_id state last_day'),
    ('TABLE', 'finding', 'fer_retainer', 'UPDATE', 'state closed_at closed_comment'),
    ('TABLE', 'finding', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'finding_day', 'fer_retainer', 'SELECT', 'finding_id capture_day'),
    ('TABLE', 'finding_day', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'checked_day', 'fer_retainer', 'SELECT', 'facility_id capture_day'),
    ('TABLE', 'checked_day', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'satisfaction_summary', 'fer_retainer', 'SELECT', 'capture_day first_day audit_id'),
    ('TABLE', 'satisfaction_summary', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'satisfaction_change', 'fer_retainer', 'SELECT', 'capture_day period comparison'),
    ('TABLE', 'satisfaction_change', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'audit', 'fer_retainer', 'SELECT', 'audit_id last_day expiry_day'),
    ('TABLE', 'audit', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'run', 'fer_retainer', 'SELECT', 'began_at'),
    ('TABLE', 'run', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'batch', 'fer_retainer', 'SELECT', 'capture_day images_listed'),
    ('TABLE', 'batch', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'finished_night', 'fer_retainer', 'SELECT', 'capture_day'),
    ('TABLE', 'finished_night', 'fer_retainer', 'DELETE', ''),
    ('TABLE', 'digest_delivery', 'fer_retainer', 'SELECT', 'capture_day'),
    ('TABLE', 'digest_delivery', 'fer_retainer', 'DELETE', ''),
    ('FUNCTION', 'count_day', 'fer_retainer', 'EXECUTE', ''),
    ('FUNCTION', 'drop_day', 'fer_retainer', 'EXECUTE', ''),

    -- Analysts: published figures, which the views show with the rights of fer_owner.
    ('TABLE', 'satisfaction_daily', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'satisfaction_period', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'not_scored_daily', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'newest_complete_day', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'happy_by_hour', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'camera_daily', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'facility_public', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'change_public', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'finding_public', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'audit_public', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'erased_day', 'fer_reader', 'SELECT', ''),
    ('TABLE', 'schema_revision', 'fer_reader', 'SELECT', ''),

    -- Those who look into the rows per image of facilities that were granted to them.
    ('TABLE', 'image', 'fer_inspector', 'SELECT', ''),
    ('TABLE', 'image_result', 'fer_inspector', 'SELECT', ''),
    ('TABLE', 'face_result', 'fer_inspector', 'SELECT', ''),
    ('FUNCTION', 'list_granted_facilities', 'fer_inspector', 'EXECUTE', ''),
    ('FUNCTION', 'is_final', 'fer_inspector', 'EXECUTE', ''),
    ('FUNCTION', 'original_image', 'fer_inspector', 'EXECUTE', ''),

    -- Audits of these facilities: they draw faces, label them and put the labels into force. Who
    -- did it and when is set by the database. The CNNs are for `audit refresh`.
    ('TABLE', 'cnn', 'fer_inspector', 'SELECT', ''),
    ('TABLE', 'cnn_promotion', 'fer_inspector', 'SELECT', ''),
    ('TABLE', 'model_version', 'fer_inspector', 'SELECT', ''),
    ('TABLE', 'audit', 'fer_inspector', 'SELECT', ''),
    ('TABLE', 'audit', 'fer_inspector', 'INSERT',
        'facility_id model_version first_day last_day seed faces_in_window faces_drawn reference'),
    ('TABLE', 'audit', 'fer_inspector', 'UPDATE',
        'finished_at finished_by start_day expiry_day'),
    ('TABLE', 'audit_face', 'fer_inspector', 'SELECT INSERT', ''),
    ('TABLE', 'audit_result', 'fer_inspector', 'SELECT INSERT DELETE', ''),
    ('TABLE', 'audit_label', 'fer_inspector', 'SELECT DELETE', ''),
    ('TABLE', 'audit_label', 'fer_inspector', 'INSERT',
        'audit_id face_number facility_id rater is_settlement label')
) AS privilege (kind, object_name, role_name, privileges, columns);

-- name: policies
-- Row-level security of the rows per image and of audits. It concerns neither the owner nor, by
-- policies that are always true, the job and, for audits, maintenance. An inspector reads, and as privileges allow writes, only rows
-- of facilities that were granted to the login: the function is called once per query. With the
-- collation of the column, the planner would look up each of the facilities in the index. The
-- expressions are written as PostgreSQL shows them.
SELECT
    t.table_name, policy.policy_name, policy.role_name, policy.command, policy.expression AS using_expression,
    CASE WHEN policy.command = 'ALL' THEN policy.expression END AS check_expression
FROM (VALUES
    ('image', 'SELECT'),
    ('image_result', 'SELECT'),
    ('face_result', 'SELECT'),
    ('audit', 'ALL'),
    ('audit_face', 'ALL'),
    ('audit_result', 'ALL'),
    ('audit_label', 'ALL')
) AS t (table_name, inspector_command)
CROSS JOIN LATERAL (VALUES
    ('job', 'fer_writer', 'ALL', 'true'),
    ('inspector', 'fer_inspector', t.inspector_command,
        '((facility_id COLLATE "default") = ANY (( SELECT fer.list_granted_facilities() AS list_granted_facilities)::text[]))')
) AS policy (policy_name, role_name, command, expression)
UNION ALL
SELECT 'audit', 'maintenance', 'fer_retainer', 'ALL', 'true', 'true';
