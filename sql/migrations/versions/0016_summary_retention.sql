-- Summaries have a retention horizon of their own, which is never after that of the rows per image:
-- a day whose summary was deleted has no rows from which a run could write it again.

ALTER TABLE fer.retention
    ADD COLUMN kind text NOT NULL DEFAULT 'rows' CHECK (kind IN ('rows', 'summaries')),
    DROP CONSTRAINT retention_pkey,
    -- A wrong clock, or whoever has the login, cannot expire days to come. Rows of earlier versions
    -- are not judged.
    ADD CONSTRAINT retention_not_in_future
        CHECK (before_day <= (set_at AT TIME ZONE 'UTC')::date) NOT VALID;
ALTER TABLE fer.retention ADD PRIMARY KEY (kind, before_day);

COMMENT ON TABLE fer.retention IS 'History of retention. Of each kind, what is before the newest before_day is permanently deleted, and no run writes it again. Rows are never changed or deleted.';
COMMENT ON COLUMN fer.retention.kind IS 'rows: the rows per image and face of capture days. summaries: the summaries of days, and of weeks and four weeks that contain such a day';

-- Maintenance deletes by these, while nights wait for it.
CREATE INDEX audit_face_day ON fer.audit_face (capture_day);
CREATE INDEX checked_day_day ON fer.checked_day (capture_day);
CREATE INDEX satisfaction_summary_of_audit ON fer.satisfaction_summary (audit_id, first_day)
    WHERE audit_id IS NOT NULL;

-- Only the owner of a table may drop its partitions. So both functions have the rights of the owner,
-- and the login of the maintenance needs none of them. The partitions of a day are found by name:
-- they may be detached, or their detaching may be pending, if an earlier version was interrupted.
CREATE FUNCTION fer.count_day(capture_day date, OUT images bigint, OUT faces bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    suffix text := to_char(capture_day, 'YYYY_MM_DD');
BEGIN
    images := 0;
    faces := 0;
    IF capture_day < '0001-01-01' THEN -- its name would be that of a day of our era
        RETURN;
    END IF;
    IF to_regclass(format('fer.%I', 'image_' || suffix)) IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM fer.%I', 'image_' || suffix) INTO images;
    END IF;
    IF to_regclass(format('fer.%I', 'face_result_' || suffix)) IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM fer.%I', 'face_result_' || suffix) INTO faces;
    END IF;
EXCEPTION WHEN undefined_table THEN -- another process has dropped the day meanwhile
    images := 0;
    faces := 0;
END
$body$;

-- The lock_timeout of the caller is for the first lock, while no other is held. Whoever else comes
-- waits behind it; so the next locks must be free.
CREATE FUNCTION fer.drop_day(capture_day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    parent text;
    partition text;
    is_dropped boolean := false;
BEGIN
    -- The tables of a day before our era would have the names of a day of our era.
    IF capture_day < '0001-01-01' OR NOT EXISTS (
        SELECT FROM fer.retention AS r
        WHERE r.kind = 'rows' AND r.before_day > drop_day.capture_day
    ) THEN
        RAISE EXCEPTION 'capture day % is not before the retention horizon', capture_day
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    LOCK TABLE ONLY fer.image IN ACCESS EXCLUSIVE MODE;
    PERFORM set_config('lock_timeout', '50ms', true);
    LOCK TABLE ONLY fer.image_result, ONLY fer.face_result IN ACCESS EXCLUSIVE MODE;
    FOREACH parent IN ARRAY ARRAY['image', 'image_result', 'face_result'] LOOP
        partition := format('fer.%I', parent || to_char(capture_day, '_YYYY_MM_DD'));
        IF to_regclass(partition) IS NOT NULL THEN
            EXECUTE 'DROP TABLE ' || partition;
            is_dropped := true;
        END IF;
    END LOOP;
    -- A label still counts in the confusion matrix of its audit, but leads to no image.
    UPDATE fer.audit_face AS f
    SET capture_day = NULL, image_key = NULL, member = NULL, etag = NULL, size_bytes = NULL,
        face_index = NULL, box_x = NULL, box_y = NULL, box_width = NULL, box_height = NULL,
        session_number = NULL
    WHERE f.capture_day = drop_day.capture_day;
    RETURN is_dropped;
END
$body$;
REVOKE EXECUTE ON FUNCTION fer.count_day, fer.drop_day FROM public;

COMMENT ON FUNCTION fer.count_day IS
    'The number of rows of image and of face_result of a capture day, of all facilities.';
COMMENT ON FUNCTION fer.drop_day IS
    'Drops the rows per image and face of a capture day, of all facilities, in the transaction of the caller; only of days before the retention horizon. Returns whether there were any tables. Needs a short lock_timeout.';
