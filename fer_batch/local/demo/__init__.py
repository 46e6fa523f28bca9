"""`fer-batch demo`: runs a day of images with known labels through Airflow and compares the result.

A day of images is created (day.py: synthetic faces; fer2013_day.py: test faces of FER2013;
photographs.py: a folder of the user's photographs; sources.py chooses), uploaded and processed
(run.py). Nothing else of fer-batch depends on this package.
"""
