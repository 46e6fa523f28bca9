-- Where a listing is collected before it is merged. It lives as long as the session, its rows
-- as long as the transaction.
CREATE TEMPORARY TABLE IF NOT EXISTS listed_image (
    place bigint GENERATED ALWAYS AS IDENTITY,
    image_key text COLLATE "C" NOT NULL,
    etag text NOT NULL,
    size_bytes bigint NOT NULL
) ON COMMIT DELETE ROWS
