-- Which nightly runs have finished, by facility, and which digests were sent. A recipient is stored
-- as a hash: addresses of people stay in the file of subscriptions.

CREATE TABLE fer.finished_night (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    run_id text NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (facility_id, capture_day)
);

CREATE TABLE fer.digest_delivery (
    subscription text COLLATE "C" NOT NULL,
    recipient_sha256 bytea NOT NULL CHECK (octet_length(recipient_sha256) = 32),
    capture_day date NOT NULL,
    run_id text NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subscription, recipient_sha256, capture_day)
);

COMMENT ON TABLE fer.finished_night IS 'The facilities and capture days whose nightly run has finished, with whatever result: written by the step notify. A day without a row is a night that did not happen';
COMMENT ON COLUMN fer.finished_night.facility_id IS 'Facility';
COMMENT ON COLUMN fer.finished_night.capture_day IS 'Capture day';
COMMENT ON COLUMN fer.finished_night.run_id IS 'First run that finished';
COMMENT ON COLUMN fer.finished_night.finished_at IS 'When it finished';
COMMENT ON TABLE fer.digest_delivery IS 'The digests that a mail server or a chat has accepted, so that none is sent twice';
COMMENT ON COLUMN fer.digest_delivery.subscription IS 'Name of the subscription';
COMMENT ON COLUMN fer.digest_delivery.recipient_sha256 IS 'SHA-256 of the mail address in lower case, or of the word chat, a colon and the name of the chat';
COMMENT ON COLUMN fer.digest_delivery.capture_day IS 'Capture day of the digest';
COMMENT ON COLUMN fer.digest_delivery.run_id IS 'Run that sent it last';
COMMENT ON COLUMN fer.digest_delivery.sent_at IS 'When it was sent last';
