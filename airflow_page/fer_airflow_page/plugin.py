"""The plugin that Airflow finds by its entry point: a navigation entry and the mounted application.

Every component of Airflow loads it, also the workers, so only the API server imports `app`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from fer_airflow_page.link import URL_PREFIX


class SatisfactionPlugin(AirflowPlugin):
    """The page "Satisfaction"."""

    name = "fer_batch_satisfaction"
    external_views: ClassVar[list[dict[str, Any]]] = [
        {
            "name": "Satisfaction",
            # Relative to the base of the UI, which may have a path: https://example.com/airflow/
            "href": f"{URL_PREFIX}/",
            "destination": "nav",
            "url_route": URL_PREFIX,
            "nav_top_level": True,
        }
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:
        """The application with its URL prefix."""
        from fer_airflow_page.app import create_app

        return [{"name": "Satisfaction", "app": create_app(), "url_prefix": f"/{URL_PREFIX}"}]
