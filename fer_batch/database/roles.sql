-- name: compose_roles
-- Statements that create missing roles, and take attributes away that they must not have. The server
-- runs `CREATE ROLE` for concurrent databases one after another; the second one finds the role.
SELECT
    coalesce(
        'ALTER ROLE ' || quote_ident(wanted.role_name) || nullif(concat(
            CASE WHEN r.rolcanlogin THEN ' NOLOGIN' END,
            CASE WHEN r.rolsuper THEN ' NOSUPERUSER' END,
            CASE WHEN r.rolcreaterole THEN ' NOCREATEROLE' END,
            CASE WHEN r.rolcreatedb THEN ' NOCREATEDB' END,
            CASE WHEN r.rolreplication THEN ' NOREPLICATION' END,
            CASE WHEN r.rolbypassrls THEN ' NOBYPASSRLS' END,
            CASE WHEN r.rolinherit <> wanted.inherits
                THEN CASE WHEN wanted.inherits THEN ' INHERIT' ELSE ' NOINHERIT' END END), ''),
        'CREATE ROLE ' || quote_ident(wanted.role_name) || ' NOLOGIN'
            || CASE WHEN wanted.inherits THEN '' ELSE ' NOINHERIT' END) AS statement
FROM jsonb_to_recordset(CAST(:roles AS jsonb)) AS wanted (role_name text, inherits boolean)
LEFT JOIN pg_roles AS r ON r.rolname = wanted.role_name
WHERE r.oid IS NULL
    OR r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
    OR r.rolbypassrls OR r.rolinherit <> wanted.inherits;

-- name: list_memberships
-- The memberships of the roles in other roles. The options are those of PostgreSQL 16; before, the
-- member's attribute INHERIT decides, and SET ROLE is always possible.
SELECT
    pg_get_userbyid(m.member) AS member,
    pg_get_userbyid(m.roleid) AS role_name,
    pg_get_userbyid(m.grantor) AS grantor,
    m.admin_option AS may_grant,
    coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, member.rolinherit) AS may_inherit,
    coalesce((to_jsonb(m) ->> 'set_option')::boolean, true) AS may_set,
    to_jsonb(m) ? 'set_option' AS has_options
FROM pg_auth_members AS m
JOIN pg_roles AS member ON member.oid = m.member
WHERE member.rolname = ANY (:members)
ORDER BY member, role_name, grantor;

-- name: is_superuser
-- Whether a role is a superuser; of null, the login.
SELECT rolsuper FROM pg_roles WHERE rolname = coalesce(CAST(:role AS text), current_user);

-- name: compose_ownership
-- Statements that give the objects of the schema to :owner, the schema itself first. Indexes, types
-- and sequences of columns follow their table.
WITH new_owner AS (
    SELECT oid FROM pg_roles WHERE rolname = :owner
)
SELECT statement FROM (
SELECT 1 AS step, format('ALTER SCHEMA fer OWNER TO %I', CAST(:owner AS text)) AS statement
FROM pg_namespace
WHERE nspname = 'fer' AND nspowner <> (SELECT oid FROM new_owner)
UNION ALL
SELECT 2, format('ALTER %s fer.%I OWNER TO %I',
    CASE c.relkind
        WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
        WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
    c.relname, CAST(:owner AS text))
FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace('fer')
    AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    AND c.relowner <> (SELECT oid FROM new_owner)
    AND NOT EXISTS (
        SELECT FROM pg_depend AS d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
            AND c.relkind = 'S')
UNION ALL
SELECT 2, format('ALTER ROUTINE %s OWNER TO %I', p.oid::regprocedure, CAST(:owner AS text))
FROM pg_proc AS p
WHERE p.pronamespace = to_regnamespace('fer')
    AND p.proowner <> (SELECT oid FROM new_owner)
) AS composed
ORDER BY step, statement;

-- name: compose_default_privileges
-- Statements that remove default privileges in the schema, and all of :owner.
SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %s REVOKE ALL ON %s FROM %s',
    pg_get_userbyid(d.defaclrole),
    CASE WHEN d.defaclnamespace <> 0 THEN 'IN SCHEMA fer' ELSE '' END,
    CASE d.defaclobjtype
        WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
        WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' END,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
) AS statement
FROM pg_default_acl AS d
CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a
WHERE (d.defaclnamespace = to_regnamespace('fer')
        OR d.defaclnamespace = 0 AND pg_get_userbyid(d.defaclrole) = :owner)
    AND a.grantee <> d.defaclrole
    -- PUBLIC has these by default, without an entry of its own.
    AND NOT (d.defaclnamespace = 0 AND a.grantee = 0 AND d.defaclobjtype IN ('f', 'T'))
GROUP BY d.defaclrole, d.defaclnamespace, d.defaclobjtype, a.grantee;

-- name: find_login
-- A login, and why row-level security does not bind it.
SELECT
    r.oid,
    r.rolcanlogin,
    r.rolsuper OR r.rolbypassrls OR EXISTS (
        SELECT FROM pg_roles AS strong
        WHERE strong.rolname IN ('fer_owner', 'fer_writer')
            AND strong.oid <> r.oid
            AND pg_has_role(r.oid, strong.oid, 'MEMBER')) AS bypasses_policies
FROM pg_roles AS r
WHERE r.rolname = :login;

-- name: grant_facilities
INSERT INTO fer.inspector_grant (login, login_oid, facility_id)
SELECT r.rolname, r.oid, f.facility_id
FROM pg_roles AS r
JOIN fer.facility AS f ON f.facility_id = ANY (:facility_ids)
WHERE r.rolname = :login
ON CONFLICT (login, facility_id) DO UPDATE
    SET login_oid = excluded.login_oid, granted_at = excluded.granted_at,
        granted_by = excluded.granted_by
    WHERE inspector_grant.login_oid <> excluded.login_oid;

-- name: revoke_facilities
-- Those given, or all.
DELETE FROM fer.inspector_grant
WHERE login = :login
    AND (CAST(:facility_ids AS text[]) = '{}' OR facility_id = ANY (:facility_ids));

-- name: list_unknown_facilities
SELECT facility_id
FROM unnest(CAST(:facility_ids AS text[])) AS facility_id
WHERE facility_id NOT IN (SELECT f.facility_id FROM fer.facility AS f);

-- name: list_grants
-- Which login has which role, and the facilities of inspectors. Rows of logins that were renamed or
-- dropped have no role.
SELECT login, role_name AS role, facilities
FROM (
    SELECT
        l.rolname::text AS login, r.rolname::text AS role_name,
        CASE WHEN r.rolname = 'fer_inspector' THEN (
            SELECT coalesce(string_agg(g.facility_id, ', ' ORDER BY g.facility_id), 'none')
            FROM fer.inspector_grant AS g
            WHERE g.login = l.rolname AND g.login_oid = l.oid) END AS facilities
    FROM pg_auth_members AS m
    JOIN pg_roles AS r ON r.oid = m.roleid
    JOIN pg_roles AS l ON l.oid = m.member
    WHERE r.rolname = ANY (:roles) AND l.rolname <> ALL (:roles)
        -- Not those who may only administer the role, since PostgreSQL 16 whoever created it.
        AND (to_jsonb(m) ->> 'inherit_option' = 'true' OR to_jsonb(m) ->> 'set_option' = 'true'
            OR NOT to_jsonb(m) ? 'set_option')
    UNION
    SELECT g.login::text, NULL, string_agg(g.facility_id, ', ' ORDER BY g.facility_id)
    FROM fer.inspector_grant AS g
    LEFT JOIN pg_roles AS l ON l.rolname = g.login AND l.oid = g.login_oid
    WHERE l.oid IS NULL
    GROUP BY g.login
) AS granted
ORDER BY login, role_name;

-- name: count_facilities
SELECT count(*) FROM fer.inspector_grant WHERE login = :login;
