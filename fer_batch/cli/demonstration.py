"""`fer-batch demo`: the whole job on this machine, with nobody's faces, FER2013's or one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fer_batch.cli.common import settings
from fer_batch.cli.stack import GROUP


def register(app: App) -> None:
    app.command(demo, group=GROUP)


def demo(
    *,
    images: Annotated[
        Path | None,
        Parameter(help="Take these photographs instead: folder/facility/…"),
    ] = None,
    fer2013: Annotated[
        Path | None,
        Parameter(
            help="Take FER2013's PrivateTest Happy and Sad faces instead, and compare each row "
            "with its label: fer2013.tar.gz, fer2013.csv or icml_face_data.csv."
        ),
    ] = None,
) -> int:
    """Run a day through Airflow on this machine and print what came out.

    Starts PostgreSQL, an S3 server and Airflow, draws a day of images of nobody's faces, runs
    the DAG satisfaction_nightly on it and compares the tables with what was drawn.
    """
    from fer_batch.demo import run

    return run.run_demo(settings(), images=images, fer2013=fer2013)
