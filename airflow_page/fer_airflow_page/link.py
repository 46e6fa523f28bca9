"""The button "Report" of a task: it opens the report that the task has written.

The DAG file attaches it to its task `report`. Airflow calls `get_link` in the worker when the task
ends, and stores the result.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf

URL_PREFIX = "satisfaction"
"""The first segment of the page's paths."""


class ReportLink(BaseOperatorLink):
    """The report of the task's run; the task returns `{"report": path of the file}`."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 (Airflow's signature)
        """Return the path of the report in the UI; empty, which shows no button, if none exists."""
        from airflow.sdk.execution_time.xcom import XCom

        result = XCom.get_value(ti_key=ti_key, key="return_value")
        if not isinstance(result, dict) or not result.get("report"):
            return ""
        # A path without a host works under every name by which people reach the UI.
        base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
        return f"{base}/{URL_PREFIX}/{str(result['report']).rpartition('/')[2]}"
