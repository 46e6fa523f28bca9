"""S3: the two clients of a bucket, listing, fetching, and (for demo and tests only) uploading.

`location` names bucket, endpoint and credentials, `client` creates the clients, `s3_errors`
translates their errors, `reader` lists and fetches many objects, `listing_pages` parses a page,
`fetching` fetches one object, `versions` identifies its content, `writer` uploads. `folder` and
`object_folder` hold what is published, on this machine or in S3; `credentials` finds the keys of a
name. Which keys are
read is decided in `pipeline` and `predict`; decoding is left to `imaging`.
"""
