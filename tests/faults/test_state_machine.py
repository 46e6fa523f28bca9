"""Random histories of a few days leave consistent tables.

Hypothesis chooses the steps: images are uploaded, replaced and deleted; runs, reruns, backfills,
promotions of another CNN and rescoring; runs that die at a failpoint; retention and erasure. After
each step all tables are read, and an independent oracle (truth.py) computes what they must hold
from the rows and from the objects that the test has put into the bucket.

In the first test a run dies inside this process by an exception that nothing catches, which takes a
fraction of a second; in the second a run is a process and dies by SIGKILL. With `FER_FAULT_SEEDS`
many more histories are tried, different ones each time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.stateful import run_state_machine_as_test

from fer_batch.model.classifier import load_artifact
from tests.faults.environment import Environment
from tests.faults.history import Machine, ProcessMachine
from tests.support.fork_server import ForkServer
from tests.support.models import build_tiny_onnx, write_tiny_cnn

SEEDS = int(os.environ.get("FER_FAULT_SEEDS", "0"))


@pytest.fixture
def environment(
    postgres_server: Any,
    migrated_template: str,
    s3_client: Any,
    seaweed_server: Any,
    tmp_path: Path,
    fork_server: ForkServer,
    forked_scoring: None,  # for the decoders
) -> Environment:
    cnns = []
    for name, is_inverted in (("upright", False), ("inverted", True)):
        (tmp_path / name).mkdir()
        card = write_tiny_cnn(tmp_path / name, build_tiny_onnx(is_inverted=is_inverted), name=name)
        cnns.append(load_artifact(card))
    return Environment(
        postgres_server,
        migrated_template,
        s3_client,
        seaweed_server,
        tmp_path,
        fork_server,
        (cnns[0], cnns[1]),
        Counter(),
    )


def build_hypothesis_settings(histories: int, steps: int) -> settings:
    return settings(
        max_examples=histories,
        stateful_step_count=steps,
        database=None,
        derandomize=False,  # True would choose histories by a hash of the source text
        phases=[Phase.generate],  # steps are slow, so a failing history is not shrunk
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


def run_histories(machine: Callable[[], Machine], chosen: settings, default_seed: int) -> None:
    """Run random histories; without `FER_FAULT_SEEDS` the same ones each time.

    `default_seed` is one whose histories contain the events that the test requires. It has to be
    chosen again if rules or strategies of the machine change.
    """
    factory: Any = machine  # any callable that returns a state machine is accepted
    if SEEDS:
        run_state_machine_as_test(factory, settings=chosen)
        return
    # Hypothesis also draws integers from the source text of all local modules that are imported.
    with mock.patch.object(HypothesisProvider, "_maybe_draw_constant", return_value=None):
        run_state_machine_as_test(seed(default_seed)(factory), settings=chosen)


def print_event_counts(environment: Environment) -> None:
    print(f"events: {dict(environment.event_counts)}")  # noqa: T201  (for the report of `make test-faults`)


@pytest.mark.timeout(7200)
def test_any_history_leaves_consistent_tables(environment: Environment) -> None:
    run_histories(
        lambda: Machine(environment),
        build_hypothesis_settings(SEEDS * 10 or 8, 16),
        default_seed=1,
    )
    print_event_counts(environment)
    assert environment.event_counts["whole runs"] >= 10
    assert sum(event.startswith("deaths") for event in environment.event_counts) >= 3
    assert environment.event_counts["retentions"] * environment.event_counts["erasures"] > 0


@pytest.mark.timeout(7200)
def test_any_history_of_killed_processes_leaves_consistent_tables(environment: Environment) -> None:
    run_histories(
        lambda: ProcessMachine(environment),
        build_hypothesis_settings(SEEDS or 2, 8),
        default_seed=3,
    )
    print_event_counts(environment)
    assert any(event.startswith("deaths") for event in environment.event_counts)
