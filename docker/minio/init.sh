#!/bin/sh
# Creates the bucket, with a lifecycle rule, and a user that may only list and read it; fer-batch
# never writes to S3.
# Every step is safe to repeat. It uses only the shell and mc: the image has little else.
set -eu
export MC_HOST_stack="http://$MINIO_ROOT_USER:$MINIO_ROOT_PASSWORD@minio:9000"
export MC_HOST_reader="http://$FER_S3_ACCESS_KEY_ID:$FER_S3_SECRET_ACCESS_KEY@minio:9000"

# A new bucket deletes images when their rows are deleted too, by the default of FER_RETENTION_DAYS.
# The images of a bucket that exists belong to somebody: it gets no rule.
mc stat "stack/$FER_S3_BUCKET" >/dev/null 2>&1 || {
  mc mb "stack/$FER_S3_BUCKET"
  mc ilm rule add --expire-days 400 "stack/$FER_S3_BUCKET"
}
mc admin user add stack "$FER_S3_ACCESS_KEY_ID" "$FER_S3_SECRET_ACCESS_KEY"
mc admin policy create stack fer-reader /fer/reader-policy.json
# Attaching a policy a second time fails; the last command checks that the user can list.
mc admin policy attach stack fer-reader --user "$FER_S3_ACCESS_KEY_ID" || true
mc ls "reader/$FER_S3_BUCKET" >/dev/null
