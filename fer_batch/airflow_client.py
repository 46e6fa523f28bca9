"""The requests to Airflow's REST API, with a login by user and password.

It works with any Airflow 3 whose auth manager gives tokens to users with a password. What is asked
is left to `freshness.airflow` and, for the local stack, to `local.stack.airflow_api`.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

from fer_batch.errors import PermanentError, RetryableError

PAGE = 100


class AirflowError(PermanentError):
    """Airflow's API refuses a request."""


class NotFoundError(AirflowError):
    """Airflow has no such object (404)."""


class AirflowUnavailableError(RetryableError):
    """Airflow's API does not answer, or is not ready yet."""


class AirflowClient:
    """A client for one Airflow, which logs in on the first call.

    `proxies` are those of the machine if None; with {} there is none.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        timeout_s: float = 30.0,
        proxies: dict[str, str] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": user, "password": password}
        self._token: str | None = None
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))

    def get_health(self) -> dict[str, dict[str, str | None]]:
        """Return the status and the latest heartbeat of each component; it needs no login."""
        health: dict[str, dict[str, str | None]] = self.send("GET", "/api/v2/monitor/health")
        return health

    def list_import_errors(self) -> list[tuple[str, str]]:
        """Return the files with an import error, each with its traceback."""
        errors: list[tuple[str, str]] = []
        while True:
            query = urlencode({"limit": PAGE, "offset": len(errors)})
            page = self.call("GET", f"importErrors?{query}")
            errors += [(each["filename"], each["stack_trace"]) for each in page["import_errors"]]
            if not page["import_errors"] or len(errors) >= page["total_entries"]:
                return errors

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send one request to /api/v2; return the JSON of the response, None if it is empty.

        Raises NotFoundError, AirflowUnavailableError, or AirflowError with Airflow's message.
        """
        if self._token is None:
            answer = self.send("POST", "/auth/token", self._login)
            if not isinstance(answer, dict) or not answer.get("access_token"):
                raise AirflowError("Airflow gives no token for user and password")
            self._token = answer["access_token"]
        return self.send(method, f"/api/v2/{path}", body)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send one request; return the JSON of the response. Raises what `call` raises."""
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310
            self.url + path, data=data, headers=headers, method=method
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                text = response.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            message = error.read().decode("utf-8", "replace")[:300]
            what = f"Airflow refuses {method} {path}: {error.code} {message}"
            if error.code == 404:
                raise NotFoundError(what) from None
            if error.code >= 500:
                raise AirflowUnavailableError(what) from None
            raise AirflowError(what) from None
        except OSError as error:
            raise AirflowUnavailableError(
                f"Airflow does not answer at {self.url}: {error}"
            ) from error
        except ValueError:
            raise AirflowError(f"{self.url}{path} does not answer with JSON") from None
