"""`fer-batch demo`: the whole job on this machine, with synthetic faces, FER2013 or photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from fer_batch.cli.common import load_settings
from fer_batch.cli.stack import GROUP


def register(app: App) -> None:
    """Add `demo`."""
    app.command(demo, group=GROUP)


def demo(
    *,
    images: Annotated[
        Path | None,
        Parameter(help="A folder of photographs to use instead, with one subfolder per facility."),
    ] = None,
    fer2013: Annotated[
        Path | None,
        Parameter(
            help="Use the Happy and Sad faces of FER2013's PrivateTest instead, and compare each "
            "result with its label: fer2013.tar.gz, fer2013.csv or icml_face_data.csv."
        ),
    ] = None,
) -> int:
    """Run a day through Airflow on this machine and print the result.

    Starts PostgreSQL, an S3 server and Airflow, draws a day of synthetic faces, runs the DAG
    satisfaction_nightly on it and compares the tables with what was drawn.
    """
    from fer_batch.local.demo import run

    return run.run_demo(load_settings(), images=images, fer2013=fer2013)
