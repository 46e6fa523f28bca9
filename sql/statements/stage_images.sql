-- Where the image results of a chunk are collected before they are merged. The table lives as
-- long as the session, its rows as long as the transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_image (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    image_key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    etag text NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    width_px integer,
    height_px integer,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (facility_id, capture_day, image_key, member)
) ON COMMIT DELETE ROWS
