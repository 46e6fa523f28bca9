"""The DAG files as the DAG processor parses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fer_batch.settings import Settings

DAGS = Path(__file__).parents[2] / "dags"

PROBE = """
import json, os, sys
import airflow.sdk
cases = json.loads(sys.argv[2])
for number, case in enumerate(cases):
    # Importing Airflow takes seconds: each case is a fork.
    if (pid := os.fork()) == 0:
        break
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"case {number} failed")
else:
    sys.exit()
os.environ.update(case)
sys.path += filter(None, case.get("PYTHONPATH", "").split(":"))
FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "sqlite3.connect")
def forbid(event, _):
    if event in FORBIDDEN:
        raise AssertionError(f"{event} while parsing")
sys.addaudithook(forbid)
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import satisfaction_nightly
dags = {}
for dag in satisfaction_nightly.DAGS:
    dags[dag.dag_id] = {
        "schedule": str(getattr(dag.timetable, "expression", "")),
        "zone": str(getattr(dag.timetable, "timezone", "")),
        "doc": dag.doc_md,
        "timeout_s": dag.dagrun_timeout.total_seconds(),
        "deadlines": [[
            d.reference.reference_name, d.interval.total_seconds(), d.callback.path
        ] for d in dag.deadline],
        "params": {k: dag.params.get_param(k).serialize() for k in dag.params},
        "tasks": {t.task_id: {
            "retries": t.retries,
            "timeout_s": t.execution_timeout and t.execution_timeout.total_seconds(),
            "policy": type(t.retry_policy).__name__,
            "doc": t.doc_md,
            "pool": t.pool,
            "map_index": t.map_index_template if hasattr(t, "map_index_template")
            else t.partial_kwargs["map_index_template"],
            "mapped": type(t).__name__ == "DecoratedMappedOperator",
            "rule": t.trigger_rule.value,
            "leaf": not t.downstream_task_ids,
        } for t in dag.tasks},
    }
from satisfaction_maintenance import dag, find_quiet_zone
(maintain,) = dag.tasks
maintenance = {
    "schedule": [dag.timetable.expression, str(dag.timetable.timezone)],
    "quiet": [find_quiet_zone(zones) for zones in case.get("ZONES", "").split("|") for zones in [
        zones.split()]],
    "doc": dag.doc_md,
    "params": {k: dag.params.get_param(k).serialize() for k in dag.params},
    "runs": [dag.max_active_runs, dag.catchup],
    "retries": maintain.retries,
    "policy": type(maintain.retry_policy).__name__,
    "told": dag.on_failure_callback.__name__,
}
facts = {"dags": dags, "maintenance": maintenance, "modules": sorted(set(sys.modules) - before)}
open(f"{sys.argv[3]}{number}", "w").write(json.dumps(facts))
"""

REGISTRY = """
[facility.a]
time_zone = "Europe/Berlin"
[facility.b]
time_zone = "Asia/Tokyo"
[facility.c]
time_zone = "Europe/Berlin"
credentials = "other"
"""


MAINTENANCE = "satisfaction_maintenance"
BERLIN, TOKYO, ANY = (
    "satisfaction_nightly_europe_berlin",
    "satisfaction_nightly_asia_tokyo",
    "satisfaction_nightly",
)


def parse_dag_files(
    folder: Path, *cases: dict[str, str], dags: Path = DAGS
) -> list[dict[str, Any]]:
    """Import the DAG files in a separate process, as the DAG processor does.

    Returns what they define, for each of several environments.
    """
    output = folder / "parsed."
    process = subprocess.run(
        [sys.executable, "-c", PROBE, str(dags), json.dumps(cases), str(output)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AIRFLOW_HOME": str(folder)},
    )
    assert process.returncode == 0, process.stderr
    return [json.loads(Path(f"{output}{n}").read_text()) for n in range(len(cases))]


QUIET = {
    "": "UTC",
    "Asia/Tokyo": "Asia/Tokyo",
    # From 02:00 UTC, when it begins in Berlin, nothing begins until the next evening in Tokyo.
    "Europe/Berlin Asia/Tokyo": "Asia/Tokyo",
    "America/New_York Asia/Tokyo Europe/Berlin": "Asia/Tokyo",
    "America/Los_Angeles America/New_York": "America/New_York",
}
"""The time zone before whose nights maintenance runs, by the time zones of the facilities."""
ZONES_THAT_DIFFER_IN_A_SIGN = ["Etc/GMT+5", "Etc/GMT-5", "America/Port-au-Prince"]


@pytest.fixture(scope="module")
def parse_dags(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the DAG files define: usually, with other time zones, and with another deadline."""
    folder = tmp_path_factory.mktemp("airflow")
    usual, signs = folder / "facilities.toml", folder / "signs.toml"
    usual.write_text(REGISTRY)
    signs.write_text(
        "\n".join(
            f'[facility.f{n}]\ntime_zone = "{zone}"'
            for n, zone in enumerate(ZONES_THAT_DIFFER_IN_A_SIGN)
        )
    )
    (folder / "our_alerts.py").write_text("def page_somebody(context):\n    pass\n")
    deadline = {
        "FER_DEADLINE_CALLBACK": "our_alerts.page_somebody",
        "FER_DEADLINE_HOURS": "2.5",
        "PYTHONPATH": str(folder),
    }
    return parse_dag_files(
        folder,
        {"FER_FACILITIES_FILE": str(usual), "ZONES": "|".join(QUIET)},
        {"FER_FACILITIES_FILE": str(signs)},
        {"FER_FACILITIES_FILE": str(usual), **deadline},
    )


@pytest.fixture(scope="module")
def parsed(parse_dags: list[dict[str, Any]]) -> dict[str, Any]:
    return parse_dags[0]


def test_there_is_one_dag_for_each_time_zone_and_one_for_any_day(parsed: dict[str, Any]) -> None:
    assert {name: (d["schedule"], d["zone"]) for name, d in parsed["dags"].items()} == {
        "satisfaction_nightly": ("", ""),
        "satisfaction_nightly_europe_berlin": ("0 3 * * *", "Europe/Berlin"),
        "satisfaction_nightly_asia_tokyo": ("0 3 * * *", "Asia/Tokyo"),
    }


def test_time_zones_that_differ_only_in_a_sign_have_different_dags(
    parse_dags: list[dict[str, Any]],
) -> None:
    dags = parse_dags[1]["dags"]
    assert {name: d["zone"] for name, d in dags.items() if d["zone"]} == {
        "satisfaction_nightly_etc_gmt_plus_5": "Etc/GMT+5",
        "satisfaction_nightly_etc_gmt_minus_5": "Etc/GMT-5",
        "satisfaction_nightly_america_port_au_prince": "America/Port-au-Prince",
    }


def test_all_dags_have_the_same_tasks_and_parameters(parsed: dict[str, Any]) -> None:
    tasks = {json.dumps(d["tasks"], sort_keys=True) for d in parsed["dags"].values()}
    params = {json.dumps(d["params"], sort_keys=True) for d in parsed["dags"].values()}
    assert len(tasks) == len(params) == 1


def test_the_trigger_form_describes_every_parameter_and_accepts_empty_fields(
    parsed: dict[str, Any],
) -> None:
    params = parsed["dags"]["satisfaction_nightly"]["params"]
    for name, param in params.items():
        assert param["description"].endswith("."), name
        # What the form marks with a red star: a type without null.
        assert ("null" in param["schema"]["type"]) is (name != "lookback_days")


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        (
            "capture_day",
            [None, "2026-11-28"],
            ["2026-11-28\n", "2026-11-31", "20261128", "28.11.2026", "yesterday", ""],
        ),
        ("facilities", [None, [], ["north-mall", "a"]], [["a\n"], ["North"], [""], "a", [3]]),
        ("lookback_days", [0, 31], [None, -1, 32, 1.5, "3"]),
        ("model_version", [None, "0123abc"], ["0123abc\n", "0123", "ABCDEF0", ""]),
        ("rescore", [None, True], ["yes", 1]),
    ],
)
def test_a_parameter_accepts_only_what_the_command_understands(
    parsed: dict[str, Any], name: str, accepted: list[Any], refused: list[Any]
) -> None:
    from airflow.sdk import Param

    schema = parsed["dags"]["satisfaction_nightly"]["params"][name]["schema"]
    for value in accepted:
        Param(value, **schema).resolve()
    for value in refused:
        with pytest.raises(ValueError, match=r"."):
            Param(value, **schema).resolve()


def test_maintenance_runs_once_a_day_before_the_nights(parsed: dict[str, Any]) -> None:
    dag = parsed["maintenance"]
    assert dag["schedule"] == ["0 1 * * *", "Asia/Tokyo"]
    assert dag["quiet"] == list(QUIET.values())
    assert dag["runs"] == [1, False]
    assert (dag["retries"], dag["policy"], dag["told"]) == (5, "RetryPolicy", "tell_failed_run")
    assert list(dag["params"]) == ["dry_run", "after_pause"]
    for name, param in dag["params"].items():
        assert (param["value"], param["schema"]["type"]) == (False, ["null", "boolean"])
        assert f"`{name}`" in dag["doc"]


def test_every_task_shows_the_capture_day(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        for task_id, task in dag["tasks"].items():
            assert "get_capture_day" in task["map_index"], task_id


def test_parsing_imports_nothing_heavy(parsed: dict[str, Any]) -> None:
    heavy = {"tensorflow", "keras", "cv2", "pandas", "onnxruntime", "numpy", "matplotlib"}
    databases = {"sqlalchemy", "psycopg", "psycopg2", "boto3", "botocore", "obstore"}
    assert not (heavy | databases | {"fer_batch"}) & {m.split(".")[0] for m in parsed["modules"]}


def test_the_docs_of_every_dag_describe_every_parameter(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        for parameter in dag["params"]:
            assert f"`{parameter}`" in dag["doc"]


def test_the_docs_of_a_dag_have_an_example_of_its_own(parsed: dict[str, Any]) -> None:
    for dag_id, example in {
        BERLIN: f"{BERLIN} --from-date\n2026-11-01T00:00+01:00 --to-date 2026-11-08T00:00+01:00",
        TOKYO: f"{TOKYO} --from-date\n2026-11-01T00:00+09:00 --to-date 2026-11-08T00:00+09:00",
        ANY: f"{TOKYO} --from-date\n2026-11-01T00:00+09:00",  # the first time zone
    }.items():
        assert example in parsed["dags"][dag_id]["doc"]
        assert "queued while the DAG is paused" in parsed["dags"][dag_id]["doc"]


def test_every_task_has_docs_retries_and_a_time_limit(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        for task_id, task in dag["tasks"].items():
            assert task["doc"], task_id
            hours = 2 if task_id in ("list_images", "score") else 1 / 3
            assert task["timeout_s"] == hours * 3600, task_id
            assert task["retries"] == (0 if task_id == "watcher" else 5)
            assert task["policy"] == "RetryPolicy", task_id


def test_a_scoring_process_reaches_its_own_deadline_before_the_task_does(
    parsed: dict[str, Any],
) -> None:
    task = parsed["dags"]["satisfaction_nightly"]["tasks"]["score"]
    assert Settings.model_fields["score_deadline_s"].default < task["timeout_s"]


def test_the_deadline_of_every_run_is_before_its_timeout(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        callback = "fer_deadline.tell_missed_deadline"
        assert dag["deadlines"] == [["AverageRuntimeDeadline", 6 * 3600, callback]]
        assert dag["timeout_s"] == 8 * 3600


def test_callback_and_hours_of_the_deadline_are_settings(parse_dags: list[dict[str, Any]]) -> None:
    assert parse_dags[2]["dags"]["satisfaction_nightly"]["deadlines"] == [
        ["AverageRuntimeDeadline", 9000, "our_alerts.page_somebody"]
    ]


def test_scoring_is_mapped_and_limited_by_the_pool(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["satisfaction_nightly"]["tasks"]
    assert [t for t in tasks if tasks[t]["mapped"]] == ["score"]
    assert [t for t in tasks if tasks[t]["pool"] == "fer_scoring"] == ["score"]


def test_the_watcher_is_the_only_leaf(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["satisfaction_nightly"]["tasks"]
    assert [t for t in tasks if tasks[t]["leaf"]] == ["watcher"]
    assert tasks["watcher"]["rule"] == "one_failed"


def test_tasks_after_scoring_run_even_if_a_shard_failed(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["satisfaction_nightly"]["tasks"]
    rules = {name: task["rule"] for name, task in tasks.items() if name != "watcher"}
    late = ("summarize", "check_data", "report", "export", "notify")
    assert rules == dict.fromkeys(rules, "all_success") | dict.fromkeys(late, "all_done")


IMPORT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])  # as the DAG processor does for the folder of a bundle
from airflow.dag_processing.dagbag import DagBag
facts = {}
for file in sys.argv[3:]:
    os.environ["FER_FACILITIES_FILE"] = file
    bag = DagBag(dag_folder=sys.argv[1])
    facts[Path(file).name] = {
        "dags": sorted(bag.dags),
        "errors": {Path(path).name: text for path, text in bag.import_errors.items()},
    }
open(sys.argv[2], "w").write(json.dumps(facts))
"""
WITH_FAULTS = {
    "zone.toml": REGISTRY.replace("Asia/Tokyo", "Asia/Tokio"),
    "fields.toml": REGISTRY + "wifi = 3\n",
    "mark.toml": "\ufeff" + REGISTRY,
    "syntax.toml": REGISTRY + "[facility.d\ntime_zone = 'UTC'\n",
}


@pytest.fixture(scope="module")
def imported_dags(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """DAGs and import errors, as Airflow has them, for each of several registries."""
    folder = tmp_path_factory.mktemp("registries")
    for name, text in WITH_FAULTS.items():
        (folder / name).write_text(text)
        os.utime(folder / name, (1, 1))  # a new file would be read again
    files = [str(folder / name) for name in (*WITH_FAULTS, "missing.toml")]
    os.utime(folder, (1, 1))
    output = folder / "output" / "imported.json"
    output.parent.mkdir()
    os.utime(folder, (1, 1))
    process = subprocess.run(
        [sys.executable, "-c", IMPORT, str(DAGS), str(output), *files],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "AIRFLOW_HOME": str(output.parent)},
    )
    assert process.returncode == 0, process.stderr
    facts: dict[str, Any] = json.loads(output.read_text())
    return facts


def test_a_wrong_time_zone_costs_only_its_dag_and_is_shown(imported_dags: dict[str, Any]) -> None:
    of_zone = imported_dags["zone.toml"]
    assert of_zone["dags"] == [MAINTENANCE, ANY, BERLIN]
    ((file, text),) = of_zone["errors"].items()
    # Airflow schedules no DAG of a file that has an error.
    assert file == "invalid_facilities.py"
    assert "zone.toml: facility b: time_zone must be an IANA time zone" in text
    assert "did you mean Asia/Tokyo" in text


@pytest.mark.parametrize("name", ["fields.toml", "mark.toml"])
def test_other_faults_and_a_byte_order_mark_cost_no_dag(
    imported_dags: dict[str, Any], name: str
) -> None:
    assert imported_dags[name] == {"dags": [MAINTENANCE, ANY, TOKYO, BERLIN], "errors": {}}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("syntax.toml", "(at line 9, column 12). Correct the syntax at that position"),
        ("missing.toml", "No such file or directory. Set FER_FACILITIES_FILE"),
    ],
)
def test_a_registry_that_cannot_be_read_is_one_import_error(
    imported_dags: dict[str, Any], name: str, problem: str
) -> None:
    assert imported_dags[name]["dags"] == [MAINTENANCE]  # which needs none
    ((file, text),) = imported_dags[name]["errors"].items()
    assert file == "satisfaction_nightly.py"
    assert name in text
    assert problem in text
