-- What the roles of sql/roles/roles.sql need. `fer-batch db roles` creates the roles themselves and
-- grants the privileges. Without the roles, one login owns the schema: neither row-level security
-- nor the grants concern an owner.

-- Create, then ATTACH: CREATE TABLE … PARTITION OF takes a lock on the parent that blocks every
-- reader, ATTACH does not. Concurrent sessions wait for each other; the second finds nothing left
-- to do. The first look is without the lock, since nearly always nothing is missing.
-- It runs with the rights of its owner: every name is qualified, or found in pg_catalog first.
CREATE OR REPLACE FUNCTION fer.ensure_partitions(days date[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    missing record;
    created integer := 0;
BEGIN
    IF cardinality(days) > 31 THEN
        RAISE EXCEPTION 'at most 31 capture days at once, not %', cardinality(days)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (
        SELECT FROM unnest(days) AS day
        WHERE (day BETWEEN DATE '2000-01-01' AND DATE '2099-12-31') IS NOT TRUE
    ) THEN
        RAISE EXCEPTION 'a capture day is between 2000-01-01 and 2099-12-31'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR round IN 1..2 LOOP
        FOR missing IN
            SELECT p.parent, d.day, format('%s_%s', p.parent, to_char(d.day, 'YYYY_MM_DD')) AS child
            FROM unnest(ARRAY['image', 'image_result', 'face_result']) WITH ORDINALITY AS p (parent, place)
            CROSS JOIN (SELECT DISTINCT unnest(days) AS day) AS d
            WHERE NOT EXISTS (
                SELECT FROM pg_inherits AS i
                JOIN pg_class AS c ON c.oid = i.inhrelid
                WHERE i.inhparent = to_regclass(format('fer.%I', p.parent))
                    AND c.relname = format('%s_%s', p.parent, to_char(d.day, 'YYYY_MM_DD')))
            ORDER BY d.day, p.place
        LOOP
            EXIT WHEN round = 1;
            EXECUTE format('CREATE TABLE fer.%I (LIKE fer.%I INCLUDING ALL)', missing.child, missing.parent);
            EXECUTE format('COMMENT ON TABLE fer.%I IS %L', missing.child,
                format('The rows of capture day %s. Query fer.%s instead: it contains every day.',
                    missing.day, missing.parent));
            EXECUTE format('ALTER TABLE fer.%I ATTACH PARTITION fer.%I FOR VALUES FROM (%L) TO (%L)',
                missing.parent, missing.child, missing.day, missing.day + 1);
            created := created + 1;
        END LOOP;
        EXIT WHEN NOT FOUND;
        IF round = 1 THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('fer.ensure_partitions', 0));
        END IF;
    END LOOP;
    RETURN created;
END
$body$;
COMMENT ON FUNCTION fer.ensure_partitions IS
    'Creates the missing partitions of image, image_result and face_result of at most 31 capture days, with the rights of the owner; returns how many it created. Several sessions may call it concurrently.';

-- Only the owner of a table may analyze it, before the privilege MAINTAIN of PostgreSQL 17.
-- Partitions that have not changed since they were last analyzed are skipped.
CREATE FUNCTION fer.analyze_partitions(days date[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    part record;
    analyzed integer := 0;
BEGIN
    IF cardinality(days) > 31 THEN
        RAISE EXCEPTION 'at most 31 capture days at once, not %', cardinality(days)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR part IN
        SELECT c.relname
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = ANY (ARRAY['fer.image', 'fer.image_result', 'fer.face_result']::regclass[])
            AND NOT i.inhdetachpending
            AND (pg_stat_get_mod_since_analyze(c.oid) > 0 OR c.reltuples < 0)
            AND substring(c.relname FROM '[0-9]{4}_[0-9]{2}_[0-9]{2}$') IN (
                SELECT to_char(day, 'YYYY_MM_DD') FROM unnest(days) AS day)
        ORDER BY c.relname
    LOOP
        EXECUTE format('ANALYZE fer.%I', part.relname);
        analyzed := analyzed + 1;
    END LOOP;
    RETURN analyzed;
END
$body$;
COMMENT ON FUNCTION fer.analyze_partitions IS
    'Runs ANALYZE on the changed partitions of at most 31 capture days, with the rights of the owner; returns how many.';

-- Which facilities a login may inspect. The number of the login is stored beside its name: a login
-- that later gets the name of another one does not get its facilities.
CREATE TABLE fer.inspector_grant (
    login name NOT NULL,
    login_oid oid NOT NULL,
    facility_id text COLLATE "C" NOT NULL REFERENCES fer.facility,
    granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    granted_by text NOT NULL DEFAULT session_user,
    PRIMARY KEY (login, facility_id)
);

-- session_user is the login, whatever SET ROLE says.
CREATE FUNCTION fer.list_granted_facilities() RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT coalesce(array_agg(g.facility_id), '{}')
    FROM fer.inspector_grant AS g
    JOIN pg_catalog.pg_roles AS r ON r.rolname = g.login AND r.oid = g.login_oid
    WHERE g.login = session_user
$body$;
COMMENT ON FUNCTION fer.list_granted_facilities IS
    'The facilities whose rows per image the login of this session may read as fer_inspector; empty: none.';

-- The policies are in sql/roles/roles.sql. Without one, only the owner reads rows.
ALTER TABLE fer.image ENABLE ROW LEVEL SECURITY;
ALTER TABLE fer.image_result ENABLE ROW LEVEL SECURITY;
ALTER TABLE fer.face_result ENABLE ROW LEVEL SECURITY;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA fer FROM public;

COMMENT ON TABLE fer.inspector_grant IS 'Which login may read the rows per image of which facility, as a member of fer_inspector. Written by fer-batch db grant';
COMMENT ON COLUMN fer.inspector_grant.login IS 'Name of the login';
COMMENT ON COLUMN fer.inspector_grant.login_oid IS 'Number of the login in pg_roles. A login that was renamed or created anew has another name or number and reads nothing until it is granted again';
COMMENT ON COLUMN fer.inspector_grant.facility_id IS 'Facility whose rows it may read';
COMMENT ON COLUMN fer.inspector_grant.granted_at IS 'When it was granted';
COMMENT ON COLUMN fer.inspector_grant.granted_by IS 'Login that granted it';
