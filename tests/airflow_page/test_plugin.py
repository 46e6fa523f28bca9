"""The plugin outside of the API server: what it loads, and the button of the task `report`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LOADED = """
import airflow.plugins_manager, airflow.sdk, json, sys
before = set(sys.modules)
from fer_airflow_page.plugin import SatisfactionPlugin
SatisfactionPlugin()
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""

LINKS = """
import json, sys
from airflow.sdk.execution_time.xcom import XCom
from fer_airflow_page.link import ReportLink
links = []
for result in json.loads(sys.argv[1]):
    XCom.get_value = lambda *, ti_key, key: result
    links.append(ReportLink().get_link(None, ti_key=None))
print(json.dumps(links))
"""

WITHOUT_PAGE = """
import json, sys
sys.modules["fer_airflow_page"] = None
sys.path.insert(0, sys.argv[1])
import satisfaction_nightly
print(json.dumps([
    list(dag.get_task("report").operator_extra_links) for dag in satisfaction_nightly.DAGS
]))
"""


def test_it_loads_nothing_heavy(run_airflow: Callable[..., Any]) -> None:
    """The workers and the DAG processor load it too."""
    loaded = set(run_airflow(LOADED))
    assert "fer_airflow_page" in loaded
    assert not loaded & {"fastapi", "starlette", "obstore", "boto3", "fer_batch"}


@pytest.mark.parametrize(
    ("base_url", "prefix"),
    [("http://example.com:8080/", ""), ("https://example.com/airflow", "/airflow")],
)
def test_the_button_leads_to_the_report_under_the_path_of_the_ui(
    run_airflow: Callable[..., Any], base_url: str, prefix: str
) -> None:
    results = '[{"report": "/reports/2026-11-29.html"}, null, {}, {"report": ""}, ["x"], "text"]'
    links = run_airflow(LINKS, results, AIRFLOW__API__BASE_URL=base_url)
    assert links == [f"{prefix}/satisfaction/2026-11-29.html", "", "", "", "", ""]


def test_without_the_page_the_dags_have_no_button(
    run_airflow: Callable[..., Any], tmp_path: Path, repo_root: Path
) -> None:
    registry = tmp_path / "facilities.toml"
    registry.write_text('[facility.a]\ntime_zone = "Europe/Berlin"\n')
    dags = str(repo_root / "dags")
    assert run_airflow(WITHOUT_PAGE, dags, FER_FACILITIES_FILE=str(registry)) == [[], []]
