COPY pg_temp.staged_image (
    facility_id, capture_day, image_key, member, etag, outcome, reason, width_px, height_px,
    size_bytes
) FROM STDIN
