"""Run Airflow's API server with the installed plugins, on SQLite; a script of test_app.py.

Prints one line of JSON, the port and a token for each user, and serves until it is killed. The
server is the complete one: Airflow's login, its middlewares and its UI around the page.
"""

from __future__ import annotations

import json
import os
import socket

import uvicorn
from airflow import settings
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.base import Base

USERS = {"viewer": "viewer", "admin": "admin", "nobody": None}


def main() -> None:
    """Create the tables and the tokens, then serve."""
    app = create_app(apps="core")
    Base.metadata.create_all(settings.engine)
    manager = get_auth_manager()
    tokens = {
        name: manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role))
        for name, role in USERS.items()
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(json.dumps({"port": listener.getsockname()[1], "tokens": tokens}), flush=True)  # noqa: T201
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads the access log
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
