"""A scoring process has the secrets that it needs and no others, as the kernel shows them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.faults.conftest import DAY, Job, wait_until_stopped
from tests.support.command import build_environment
from tests.support.repository import REPO_ROOT

CANARIES = {
    "AIRFLOW__CORE__FERNET_KEY": "canary-1",
    "AIRFLOW__CELERY__BROKER_URL": "redis://:canary-2@redis/0",
    "AIRFLOW_CONN_WAREHOUSE": "postgresql://canary-3@warehouse/",
    "GITHUB_TOKEN": "canary-4",
    "PGPASSWORD": "canary-5",
    "AWS_SECRET_ACCESS_KEY": "canary-6",
    "FER_S3_CREDENTIALS__REPORT__ACCESS_KEY_ID": "report",
    "FER_S3_CREDENTIALS__REPORT__SECRET_ACCESS_KEY": "canary-7",
    "FER_S3_CREDENTIALS__OTHER__ACCESS_KEY_ID": "other",
    "FER_S3_CREDENTIALS__OTHER__SECRET_ACCESS_KEY": "canary-8",
    "FER_ERASURE_SECRET": "canary-10, which is long enough to be a secret",
}


def test_a_scoring_process_has_no_secret_of_others(job: Job, tmp_path: Path) -> None:
    settings = tmp_path / "settings"
    settings.write_text(
        "FER_S3_CREDENTIALS__THIRD__ACCESS_KEY_ID=third\n"
        "FER_S3_CREDENTIALS__THIRD__SECRET_ACCESS_KEY=canary-9\n"
    )
    # Not from the fork server, whose processes all show its own environment.
    with subprocess.Popen(
        [sys.executable, "-m", "fer_batch", "run", "--capture-day", DAY.isoformat()],
        cwd=REPO_ROOT,
        env=build_environment(
            {
                **job.env,
                **CANARIES,
                "FER_DATABASE_URL": job.url,
                "FER_ENV_FILE": str(settings),
                "FER_FAILPOINT": "classify.after:1:STOP",
            }
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        stopped = next(json.loads(line) for line in process.stderr if "failpoint" in line)
        variables = dict(
            line.split("=", 1)
            for line in Path(f"/proc/{stopped['pid']}/environ").read_text().split("\0")
            if "=" in line
        )
        wait_until_stopped(stopped["pid"])
        os.kill(stopped["pid"], signal.SIGCONT)
        rest = process.stderr.read()
    assert process.returncode == 0, rest

    assert [name for name, value in variables.items() if "canary" in value] == []
    # The file of the settings is not read by the scoring process either.
    assert variables["FER_ENV_FILE"] == "/dev/null"
    assert variables["FER_DATABASE_URL"] == job.url
    assert variables["FER_S3_SECRET_ACCESS_KEY"] == job.env["FER_S3_SECRET_ACCESS_KEY"]
