-- Camera and capture time of an image, as its key tells them. Stored images get them from
-- `fer-batch db backfill-times` or with their next listing: the template is in the registry, which a
-- migration does not read.

ALTER TABLE fer.facility
    ADD COLUMN name_template text CHECK (name_template <> ''),
    ADD COLUMN name_clock text NOT NULL DEFAULT 'local' CHECK (name_clock IN ('local', 'UTC'));

-- Both on the partitioned table, which adds them to every day.
ALTER TABLE fer.image
    ADD COLUMN camera text CHECK (char_length(camera) BETWEEN 1 AND 100),
    ADD COLUMN captured_at_utc timestamptz;

COMMENT ON COLUMN fer.facility.name_template IS 'Part of the keys after key_template, with camera and capture time, such as {camera}/{captured_at:%H%M%S}-{*}.jpg; null: the keys of the facility tell neither';
COMMENT ON COLUMN fer.facility.name_clock IS 'Clock of the capture times in the keys. local: in time_zone. UTC: in UTC';
COMMENT ON COLUMN fer.image.camera IS 'Camera, as the key names it by the facility''s name_template; null: the key names none, or does not match the template';
COMMENT ON COLUMN fer.image.captured_at_utc IS 'When the image was captured, as the key tells it by the facility''s name_template; null: it tells no time, does not match the template, or the time is more than 48 hours from noon of the capture day';
