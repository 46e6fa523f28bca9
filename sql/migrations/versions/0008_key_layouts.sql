-- A facility may have several key templates, keys by the date in UTC, and objects that are no
-- images.

ALTER TABLE fer.facility ALTER COLUMN key_template TYPE text[] USING ARRAY[key_template];
ALTER TABLE fer.facility
    ADD CHECK (cardinality(key_template) >= 1),
    ADD COLUMN day_clock text NOT NULL DEFAULT 'local' CHECK (day_clock IN ('local', 'UTC')),
    ADD COLUMN include text[] NOT NULL DEFAULT '{}',
    ADD COLUMN exclude text[] NOT NULL DEFAULT '{}',
    ADD COLUMN empty_days text NOT NULL DEFAULT 'error' CHECK (empty_days IN ('error', 'allowed'));

ALTER TABLE fer.batch
    ADD COLUMN objects_excluded bigint CHECK (objects_excluded >= 0),
    ADD COLUMN images_late bigint NOT NULL DEFAULT 0 CHECK (images_late >= 0);

COMMENT ON COLUMN fer.facility.key_template IS 'Beginnings of the keys of a capture day, such as {facility_id}/{capture_day:%Y-%m-%d}/';
COMMENT ON COLUMN fer.facility.day_clock IS 'Clock of the dates in key_template. local: in time_zone. UTC: in UTC';
COMMENT ON COLUMN fer.facility.include IS 'Patterns of which a key must match one to be an image; empty: every object is an image';
COMMENT ON COLUMN fer.facility.exclude IS 'Patterns of the keys that are no images';
COMMENT ON COLUMN fer.facility.empty_days IS 'error: an open day without images is an error once the facility had images. allowed: it is not';
COMMENT ON COLUMN fer.batch.objects_excluded IS 'Objects that the last successful listing left out because of include and exclude; null: never listed, or by a version that did not count them';
COMMENT ON COLUMN fer.batch.images_late IS 'Images that were uploaded after the last listing of the day, when no run lists it any more; found by a later run. A listing of the day sets it to 0';
