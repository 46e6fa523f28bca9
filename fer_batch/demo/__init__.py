"""`fer-batch demo`: a day of images with a known answer, run through Airflow and compared.

A day of images is made (day.py: drawn faces; fer2013_day.py: FER2013's test faces;
photographs.py: a folder of one's own), uploaded and run (run.py). Nothing else of fer-batch
depends on this package.
"""
