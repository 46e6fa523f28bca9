-- CNNs and which of them is in use. The bytes are here so that every worker gets them the way it
-- gets everything else; they are hashed again by whoever opens them.

CREATE TABLE fer.cnn (
    cnn_sha256 text COLLATE "C" PRIMARY KEY CHECK (cnn_sha256 ~ '^[0-9a-f]{64}$'),
    artefact_sha256 text COLLATE "C" NOT NULL,
    card jsonb NOT NULL,
    artefact bytea NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT cnn_artefact_is_its_hash CHECK (artefact_sha256 = encode(sha256(artefact), 'hex')),
    CONSTRAINT cnn_card_is_of_artefact CHECK (coalesce(card ->> 'artefact_sha256', '') = artefact_sha256)
);
-- Weights do not get smaller by compressing.
ALTER TABLE fer.cnn ALTER COLUMN artefact SET STORAGE EXTERNAL;

CREATE TABLE fer.cnn_promotion (
    promotion_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cnn_sha256 text COLLATE "C" NOT NULL REFERENCES fer.cnn,
    is_rollback boolean NOT NULL,
    promoted_by text NOT NULL CHECK (promoted_by <> ''),
    why text NOT NULL CHECK (why <> ''),
    promoted_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

ALTER TABLE fer.run ADD COLUMN model_version text COLLATE "C" REFERENCES fer.model_version;

-- What was in use when, and who said so, is never written anew: not even by the owner, unless the
-- trigger is taken away first.
CREATE FUNCTION fer.refuse_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    RAISE EXCEPTION 'rows of %.% are never changed or deleted', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END
$body$;
COMMENT ON FUNCTION fer.refuse_change IS
    'Trigger of the tables whose rows stay as they were written: refuses whatever would change them.';

CREATE TRIGGER cnn_promotion_is_kept BEFORE UPDATE OR DELETE ON fer.cnn_promotion
    FOR EACH ROW EXECUTE FUNCTION fer.refuse_change();
CREATE TRIGGER cnn_promotion_is_not_emptied BEFORE TRUNCATE ON fer.cnn_promotion
    FOR EACH STATEMENT EXECUTE FUNCTION fer.refuse_change();
CREATE TRIGGER cnn_is_kept BEFORE UPDATE ON fer.cnn
    FOR EACH ROW EXECUTE FUNCTION fer.refuse_change();

-- Where the role of analysts exists already, its default privileges let it read the new tables
-- whole. The bytes are for those who score.
DO $body$
BEGIN
    IF to_regrole('fer_analyst') IS NOT NULL THEN
        REVOKE SELECT ON fer.cnn FROM fer_analyst;
        GRANT SELECT (cnn_sha256, artefact_sha256, card, registered_at) ON fer.cnn TO fer_analyst;
    END IF;
END
$body$;

COMMENT ON TABLE fer.cnn IS 'One row per CNN that was registered or has scored, with its bytes. Rows are never changed.';
COMMENT ON COLUMN fer.cnn.cnn_sha256 IS 'SHA-256 of what the CNN adds to a manifest: its artefact and the threshold of is_uncertain';
COMMENT ON COLUMN fer.cnn.artefact_sha256 IS 'SHA-256 of the artefact; checked before it is opened';
COMMENT ON COLUMN fer.cnn.card IS 'The card: name, recipe, data, figures';
COMMENT ON COLUMN fer.cnn.artefact IS 'The ONNX file. Not for analysts';
COMMENT ON COLUMN fer.cnn.registered_at IS 'When it was written here';
COMMENT ON TABLE fer.cnn_promotion IS 'Which CNN is in use: the newest row says so, the others are its history. No row: the CNN that ships. The setting FER_MODEL_CARD stands above it. Rows are never changed or deleted.';
COMMENT ON COLUMN fer.cnn_promotion.promotion_id IS 'The larger, the newer';
COMMENT ON COLUMN fer.cnn_promotion.cnn_sha256 IS 'CNN in use from then on, see cnn';
COMMENT ON COLUMN fer.cnn_promotion.is_rollback IS 'True: the promotion before was taken back. False: this CNN was promoted';
COMMENT ON COLUMN fer.cnn_promotion.promoted_by IS 'Who did it, as they said';
COMMENT ON COLUMN fer.cnn_promotion.why IS 'Why, in their words';
COMMENT ON COLUMN fer.cnn_promotion.promoted_at IS 'When';
COMMENT ON COLUMN fer.run.model_version IS 'Model version that the run uses from its planning to its end, see model_version; null: the run was begun before versions were fixed';
