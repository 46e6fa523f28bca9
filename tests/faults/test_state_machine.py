"""Whatever happens to a few days, in whatever order, the tables stay true.

Hypothesis chooses what happens: images come, are replaced and deleted; runs, reruns, backfills,
another CNN, rescoring; runs that die at a failpoint; retention and erasure. After each step the
tables are read as they are, and what they must say is worked out here, in Python, from the rows
and from what the test itself has put into the bucket.

A run dies in this process, by an exception that nothing catches, which takes a fraction of a
second; in a test of its own it is a process and dies by SIGKILL. With `FER_FAULT_SEEDS` many more
histories are tried, other ones each time.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fer_batch.classifier import load_artefact
from tests.faults.history import Lab, Machine, MachineOfProcesses
from tests.support.models import tiny_onnx, write_tiny_cnn

SEEDS = int(os.environ.get("FER_FAULT_SEEDS", "0"))


@pytest.fixture
def lab(
    postgres_server: Any,
    migrated_template: str,
    s3_client: Any,
    seaweed_server: Any,
    tmp_path: Path,
) -> Lab:
    cnns = []
    for name, is_inverted in (("upright", False), ("inverted", True)):
        (tmp_path / name).mkdir()
        card = write_tiny_cnn(tmp_path / name, tiny_onnx(is_inverted=is_inverted), name=name)
        cnns.append(load_artefact(card))
    return Lab(
        postgres_server,
        migrated_template,
        s3_client,
        seaweed_server,
        tmp_path,
        (cnns[0], cnns[1]),
        Counter(),
    )


def histories(number: int, steps: int) -> settings:
    return settings(
        max_examples=number,
        stateful_step_count=steps,
        database=None,
        derandomize=not SEEDS,  # CI tries the same ones each time
        phases=[Phase.generate],  # each step takes a while: a short history is shown as it is
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def tell(lab: Lab) -> None:
    print(f"what happened: {dict(lab.happened)}")  # noqa: T201  (the counts are asked for)


@pytest.mark.timeout(7200)
def test_any_history_leaves_true_tables(lab: Lab) -> None:
    run_state_machine_as_test(lambda: Machine(lab), settings=histories(SEEDS * 10 or 8, 16))
    tell(lab)
    assert lab.happened["whole runs"] >= 10
    assert sum(what.startswith("deaths") for what in lab.happened) >= 3
    assert lab.happened["retentions"] * lab.happened["erasures"] > 0


@pytest.mark.timeout(7200)
def test_any_history_of_processes_that_are_killed_leaves_true_tables(lab: Lab) -> None:
    run_state_machine_as_test(lambda: MachineOfProcesses(lab), settings=histories(SEEDS or 2, 8))
    tell(lab)
    assert any(what.startswith("deaths") for what in lab.happened)
