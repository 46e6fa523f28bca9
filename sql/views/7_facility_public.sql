-- The facilities without what is not for analysts: buckets, keys, and who permitted what.
CREATE OR REPLACE VIEW fer.facility_public AS
SELECT
    facility_id,
    name AS facility_name,
    group_name,
    time_zone,
    image_kind,
    target_rate,
    publish_period,
    expected_images_min,
    closed_weekdays,
    is_in_registry,
    permission_valid_until
FROM fer.facility;

COMMENT ON VIEW fer.facility_public IS 'One row per facility, with what analysts need of the registry.';
COMMENT ON COLUMN fer.facility_public.facility_id IS 'Facility, as in the other views';
COMMENT ON COLUMN fer.facility_public.facility_name IS 'Display name of the facility';
COMMENT ON COLUMN fer.facility_public.group_name IS 'Group of the facility, such as an area or a brand; null: none';
COMMENT ON COLUMN fer.facility_public.time_zone IS 'IANA time zone, such as Europe/Berlin; determines when a capture day ends';
COMMENT ON COLUMN fer.facility_public.image_kind IS 'crops: each image is one face. frames: camera pictures in which faces are detected';
COMMENT ON COLUMN fer.facility_public.target_rate IS 'Target of the happy rate (0 to 1); null: none';
COMMENT ON COLUMN fer.facility_public.publish_period IS 'Shortest period of which figures are published: day or week';
COMMENT ON COLUMN fer.facility_public.expected_images_min IS 'Images that an open day has at least; fewer is a finding';
COMMENT ON COLUMN fer.facility_public.closed_weekdays IS 'Weekdays on which the facility is closed, such as {sun}';
COMMENT ON COLUMN fer.facility_public.is_in_registry IS 'False: the facility has left the registry; its rows remain';
COMMENT ON COLUMN fer.facility_public.permission_valid_until IS 'Last day on which images may be read; null: no permission is recorded';
