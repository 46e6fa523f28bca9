#!/bin/sh
# Creates the bucket with a lifecycle rule, and a user that may only list and read it; fer-batch
# never writes to S3.
# Every step is safe to repeat. It uses only the shell and mc: the image has little else.
set -eu
export MC_HOST_stack="http://$MINIO_ROOT_USER:$MINIO_ROOT_PASSWORD@minio:9000"
export MC_HOST_reader="http://$FER_S3_ACCESS_KEY_ID:$FER_S3_SECRET_ACCESS_KEY@minio:9000"

mc mb --ignore-existing "stack/$FER_S3_BUCKET"
# Delete images when their rows are deleted too, by the default of FER_RETENTION_DAYS; a bucket that
# has lifecycle rules keeps them.
mc ilm rule ls "stack/$FER_S3_BUCKET" >/dev/null 2>&1 ||
  mc ilm rule add --expire-days 400 "stack/$FER_S3_BUCKET"
mc admin user add stack "$FER_S3_ACCESS_KEY_ID" "$FER_S3_SECRET_ACCESS_KEY"
mc admin policy create stack fer-reader /fer/reader-policy.json
# Attaching a policy a second time fails; the last command checks that the user can list.
mc admin policy attach stack fer-reader --user "$FER_S3_ACCESS_KEY_ID" || true
mc ls "reader/$FER_S3_BUCKET" >/dev/null
