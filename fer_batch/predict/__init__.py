"""`fer-batch predict`: one or several pictures from a file, folder, URL or S3, scored at once.

`prediction` reads the source, scores and formats; `downloads` fetches URLs without reaching
private networks; `annotation` marks the faces in copies of the pictures. It decodes and classifies
exactly as the nightly run does and stores nothing.
"""
