TRUNCATE pg_temp.staged_image, pg_temp.staged_face
