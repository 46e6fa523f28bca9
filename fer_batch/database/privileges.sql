-- name: find_owner
SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'fer';

-- name: compose_privileges
-- Statements that make the privileges on the schema and its objects those of :privileges, of all
-- roles except the owner; and those of PUBLIC and the roles on the database. Revocations come first:
-- one of a table takes the privileges on its columns along.
WITH wanted_row AS (
    SELECT
        w.kind, w.object_name, w.role_name, privilege, coalesce(column_name, '') AS column_name
    FROM jsonb_to_recordset(CAST(:privileges AS jsonb))
        AS w (kind text, object_name text, role_name text, privileges text, columns text)
    CROSS JOIN LATERAL string_to_table(w.privileges, ' ') AS privilege
    LEFT JOIN LATERAL string_to_table(w.columns, ' ') AS column_name ON true
),
object AS (
    SELECT
        'SCHEMA' AS kind, nspname::text AS object_name, 'SCHEMA ' || quote_ident(nspname) AS object,
        nspowner AS owner, coalesce(nspacl, acldefault('n', nspowner)) AS acl, '' AS column_name
    FROM pg_namespace
    WHERE nspname = 'fer'
    UNION ALL
    SELECT
        CASE WHEN relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname::text,
        format('%s fer.%I', CASE WHEN relkind = 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname),
        relowner, relacl, ''
    FROM pg_class
    WHERE relnamespace = to_regnamespace('fer') AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    UNION ALL
    SELECT
        'TABLE', c.relname::text, format('TABLE fer.%I', c.relname), c.relowner, a.attacl,
        a.attname::text
    FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relnamespace = to_regnamespace('fer') AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT
        'FUNCTION', proname::text, 'ROUTINE ' || oid::regprocedure, proowner,
        coalesce(proacl, acldefault('f', proowner)), ''
    FROM pg_proc
    WHERE pronamespace = to_regnamespace('fer')
    UNION ALL
    SELECT
        'DATABASE', '', 'DATABASE ' || quote_ident(datname), datdba,
        coalesce(datacl, acldefault('d', datdba)), ''
    FROM pg_database
    WHERE datname = current_database()
),
actual AS (
    SELECT
        o.kind, o.object, o.column_name, a.grantee, a.privilege_type::text AS privilege,
        bool_or(a.is_grantable) AS is_grantable
    FROM object AS o
    CROSS JOIN LATERAL aclexplode(o.acl) AS a
    WHERE a.grantee <> o.owner
        AND (o.kind <> 'DATABASE'
            OR a.grantee = 0 AND a.privilege_type <> 'CONNECT'
            OR a.grantee IN (SELECT to_regrole(role_name) FROM wanted_row))
    GROUP BY o.kind, o.object, o.column_name, a.grantee, a.privilege_type
    UNION ALL
    -- PostgreSQL before 15 let everybody create objects here.
    SELECT 'DATABASE', 'SCHEMA public', '', a.grantee, a.privilege_type, bool_or(a.is_grantable)
    FROM pg_namespace
    CROSS JOIN LATERAL aclexplode(nspacl) AS a
    WHERE nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'
    GROUP BY a.grantee, a.privilege_type
),
wanted AS (
    SELECT DISTINCT
        o.kind, o.object, w.column_name, to_regrole(w.role_name)::oid AS grantee, w.privilege
    FROM wanted_row AS w
    JOIN object AS o ON o.kind = w.kind AND o.object_name = w.object_name AND o.column_name = ''
    WHERE to_regrole(w.role_name)::oid <> o.owner
),
change AS (
    SELECT
        coalesce(w.kind, a.kind) AS kind,
        coalesce(w.object, a.object) AS object,
        coalesce(w.grantee, a.grantee) AS grantee,
        CASE
            WHEN a.privilege IS NULL THEN 'GRANT'
            WHEN w.privilege IS NULL THEN 'REVOKE'
            ELSE 'REVOKE GRANT OPTION FOR'
        END AS verb,
        coalesce(w.privilege, a.privilege)
            || CASE coalesce(w.column_name, a.column_name) WHEN '' THEN ''
                ELSE format(' (%I)', coalesce(w.column_name, a.column_name)) END AS privilege
    FROM wanted AS w
    FULL JOIN actual AS a USING (kind, object, column_name, grantee, privilege)
    WHERE w.privilege IS NULL OR a.privilege IS NULL OR a.is_grantable
)
SELECT
    kind,
    format('%s %s ON %s %s %s%s',
        verb, string_agg(privilege, ', ' ORDER BY privilege), object,
        CASE verb WHEN 'GRANT' THEN 'TO' ELSE 'FROM' END,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE verb WHEN 'GRANT' THEN '' ELSE ' CASCADE' END) AS statement
FROM change
GROUP BY kind, object, grantee, verb
ORDER BY verb = 'GRANT', kind, object, grantee;

-- name: compose_policies
-- Statements that make the row-level security of the tables that have policies in :policies as
-- there, and switch it on.
WITH wanted AS (
    SELECT w.*, to_regclass(format('fer.%I', w.table_name)) AS table_oid
    FROM jsonb_to_recordset(CAST(:policies AS jsonb)) AS w (
        table_name text, policy_name text, role_name text, command text, using_expression text,
        check_expression text)
),
actual AS (
    SELECT
        p.polrelid AS table_oid,
        p.polname::text AS policy_name,
        p.polpermissive
        AND p.polroles = ARRAY[to_regrole(w.role_name)::oid]
        AND p.polcmd::text = CASE w.command WHEN 'ALL' THEN '*' WHEN 'SELECT' THEN 'r' END
        AND coalesce(pg_get_expr(p.polqual, p.polrelid), '') = coalesce(w.using_expression, '')
        AND coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '')
            = coalesce(w.check_expression, '')
            AS is_right
    FROM pg_policy AS p
    LEFT JOIN wanted AS w ON w.table_oid = p.polrelid AND w.policy_name = p.polname
    WHERE p.polrelid IN (SELECT table_oid FROM wanted)
)
SELECT statement
FROM (
    SELECT 1 AS step, format('DROP POLICY %I ON %s', policy_name, table_oid::regclass) AS statement
    FROM actual
    WHERE is_right IS NOT TRUE
    UNION ALL
    SELECT 2, format('CREATE POLICY %I ON %s FOR %s TO %I USING (%s)%s',
        policy_name, table_oid, command, role_name, using_expression,
        ' WITH CHECK (' || check_expression || ')')
    FROM wanted
    WHERE (table_oid, policy_name) NOT IN (
        SELECT table_oid, policy_name FROM actual WHERE is_right)
    UNION ALL
    SELECT 3, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', oid::regclass)
    FROM pg_class
    WHERE oid IN (SELECT table_oid FROM wanted)
        AND (NOT relrowsecurity OR relforcerowsecurity)
) AS composed
ORDER BY step, statement;

-- name: list_missing
-- Which of a role's privileges the login lacks, whether it has them as a member or as the owner.
WITH wanted AS (
    SELECT w.kind, w.object_name, privilege, column_name
    FROM jsonb_to_recordset(CAST(:privileges AS jsonb))
        AS w (kind text, object_name text, role_name text, privileges text, columns text)
    CROSS JOIN LATERAL string_to_table(w.privileges, ' ') AS privilege
    LEFT JOIN LATERAL string_to_table(w.columns, ' ') AS column_name ON true
    WHERE w.role_name = :role
),
relation AS (
    SELECT relname, oid FROM pg_class WHERE relnamespace = to_regnamespace('fer')
),
routine AS (
    SELECT proname, oid FROM pg_proc WHERE pronamespace = to_regnamespace('fer')
)
SELECT format('has no privilege %s on %s', string_agg(w.privilege, ', ' ORDER BY w.privilege), CASE w.kind
    WHEN 'DATABASE' THEN 'the database' WHEN 'SCHEMA' THEN 'the schema fer'
    ELSE format('%s fer.%s', lower(w.kind), w.object_name) END)
FROM wanted AS w
LEFT JOIN relation ON relation.relname = w.object_name
LEFT JOIN routine ON routine.proname = w.object_name
WHERE NOT CASE w.kind
    WHEN 'DATABASE' THEN has_database_privilege(current_database(), w.privilege)
    WHEN 'SCHEMA' THEN has_schema_privilege(w.object_name, w.privilege)
    WHEN 'FUNCTION' THEN has_function_privilege(routine.oid, w.privilege)
    WHEN 'TABLE' THEN CASE
        WHEN w.column_name IS NULL THEN has_table_privilege(relation.oid, w.privilege)
        ELSE has_column_privilege(relation.oid, w.column_name, w.privilege) END
    END
GROUP BY w.kind, w.object_name
UNION ALL
SELECT 'is not a member of fer_writer, and row-level security hides all rows from it'
WHERE :role = 'fer_writer'
    AND row_security_active('fer.image')
    AND pg_has_role(to_regrole('fer_writer')::oid, 'USAGE') IS NOT TRUE;

-- name: list_excess
-- What the login may beyond the nightly job.
SELECT 'is a superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL
SELECT 'may create roles' FROM pg_roles WHERE rolname = current_user AND rolcreaterole AND NOT rolsuper
UNION ALL
SELECT 'bypasses row-level security'
FROM pg_roles WHERE rolname = current_user AND rolbypassrls AND NOT rolsuper
UNION ALL
SELECT 'owns the schema fer'
FROM pg_namespace AS n
JOIN pg_roles AS r ON r.rolname = current_user AND NOT r.rolsuper
WHERE n.nspname = 'fer' AND pg_has_role(n.nspowner, 'MEMBER')
UNION ALL
SELECT 'is a member of fer_eraser'
FROM pg_roles WHERE rolname = current_user AND NOT rolsuper
    AND pg_has_role(to_regrole('fer_eraser')::oid, 'MEMBER');
