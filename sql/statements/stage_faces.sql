-- Where the faces of a chunk are collected before they are merged, likewise.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_face (
    facility_id text COLLATE "C" NOT NULL,
    capture_day date NOT NULL,
    image_key text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    face_index smallint NOT NULL,
    box_x integer NOT NULL,
    box_y integer NOT NULL,
    box_width integer NOT NULL,
    box_height integer NOT NULL,
    detector_score real,
    p_happy real NOT NULL,
    p_sad real NOT NULL,
    p_neither real NOT NULL,
    is_uncertain boolean NOT NULL,
    PRIMARY KEY (facility_id, capture_day, image_key, member, face_index)
) ON COMMIT DELETE ROWS
