COPY pg_temp.listed_image (image_key, etag, size_bytes) FROM STDIN
