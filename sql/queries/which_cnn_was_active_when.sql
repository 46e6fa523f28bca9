-- Which CNN was active when, and why? Before the oldest row: the shipped CNN.
-- Role: fer_writer
SELECT
    c.card ->> 'name' AS cnn,
    left(p.cnn_sha256, 12) AS cnn_sha256,
    p.promoted_at AS in_use_from,
    lead(p.promoted_at) OVER (ORDER BY p.promotion_id) AS in_use_until,
    p.is_rollback,
    p.promoted_by,
    p.why
FROM fer.cnn_promotion AS p
JOIN fer.cnn AS c USING (cnn_sha256)
ORDER BY p.promotion_id DESC;
