-- An erased image is recorded by HMAC(secret, SHA-256 of its key) instead of the SHA-256 alone, so
-- that nobody can verify a guessed key who has only the database. The secret is FER_ERASURE_SECRET
-- and is never sent to the database. `secret_check` tells whether a secret is the one of a record.
-- pg_temp.converted_key has both values of the records that exist.
ALTER TABLE fer.deletion RENAME COLUMN key_sha256 TO key_hmac;
ALTER TABLE fer.deletion RENAME CONSTRAINT deletion_key_sha256_check TO deletion_key_hmac_check;
ALTER TABLE fer.deletion
    ADD COLUMN secret_check bytea CHECK (octet_length(secret_check) = 8);

ALTER TABLE fer.deletion DISABLE TRIGGER deletion_is_kept;
UPDATE fer.deletion AS d
SET key_hmac = c.key_hmac, secret_check = c.secret_check
FROM pg_temp.converted_key AS c
WHERE d.deletion_id = c.deletion_id;
ALTER TABLE fer.deletion ENABLE TRIGGER deletion_is_kept;

ALTER TABLE fer.deletion
    ADD CONSTRAINT deletion_secret_check_of_image
        CHECK ((kind = 'image') = (secret_check IS NOT NULL)),
    -- Another type in form only: the table and its indexes are written anew, without the SHA-256.
    ALTER COLUMN key_hmac TYPE bytea USING key_hmac || ''::bytea;

-- Each listing asks for images that were erased on a day next to its own, and for other secrets.
CREATE INDEX deletion_by_secret ON fer.deletion (secret_check, capture_day) WHERE kind = 'image';

COMMENT ON COLUMN fer.deletion.key_hmac IS 'HMAC-SHA256 of the SHA-256 of the key of an erased image, with FER_ERASURE_SECRET, so that listings can skip it; null: a whole day was deleted';
COMMENT ON COLUMN fer.deletion.secret_check IS 'Value derived from FER_ERASURE_SECRET, by which another secret is recognized; null: a whole day was deleted';
