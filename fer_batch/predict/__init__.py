"""`fer-batch predict`: one or several pictures from a file, folder, URL or S3, scored at once.

`prediction` reads the source, scores and formats; `objects` reads S3 under the rules of the
facilities that own the objects; `downloads` fetches URLs without reaching private networks;
`annotation` marks the faces in copies of the pictures; `names` prints names. It decodes and
classifies exactly as the nightly run does and stores nothing.
"""
