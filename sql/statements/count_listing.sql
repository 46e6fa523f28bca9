SELECT count(DISTINCT image_key) FROM pg_temp.listed_image
