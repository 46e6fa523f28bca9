"""`fer-batch audit label` from the command to the tables, with a real S3 server and PostgreSQL."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from fer_batch.audit.crops import SIDE_PX
from fer_batch.audit.page.server import check_installed
from fer_batch.errors import ConfigurationError
from fer_batch.local.stack.postgres import OWNER
from tests.fixtures.command import Command
from tests.fixtures.night import Night, format_facility
from tests.fixtures.servers import INSPECTOR, switch_login
from tests.support.command import build_environment
from tests.support.fork_server import ForkedPopen
from tests.support.labeling import decode_picture

FACES = 40


@pytest.fixture
def inspector(nightly: Command, night: Night) -> Command:
    """The command with a login that may only read the rows per image, of the facility mall."""
    night.write_registry(format_facility("mall"))
    night.fill("mall", 30, 10)
    night.run()
    url = nightly.env["FER_DATABASE_URL"]
    owner = {"FER_DATABASE_URL": switch_login(url, OWNER)}
    assert nightly("db", "grant", INSPECTOR, "--facility", "mall", **owner).code == 0
    login = {**nightly.env, "FER_DATABASE_URL": switch_login(url, INSPECTOR)}
    return Command(nightly.server, nightly.folder, login)


def test_without_the_extra_the_command_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigurationError, match="with the extra `audit`"):
        check_installed()


@contextmanager
def label(command: Command, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command until the page is served; yields its address."""
    with ForkedPopen(
        command.server,
        ["audit", "label", *arguments, "--port", "0"],
        env=build_environment(command.env),
        cwd=command.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"http://\S+", x) for x in process.stdout)), None)
            assert found, process.stderr and process.stderr.read()
            yield found[0], process
        finally:
            process.kill()


def end(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """End it; returns what it says. Nothing that it started is left."""
    children = psutil.Process(process.pid).children(recursive=True)
    assert children  # the server of the decoders, and a decoder
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert psutil.wait_procs(children, timeout=10)[1] == []
    return out


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310
        return bytes(response.read())


def post(url: str, body: object) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
        return json.load(response)


def test_an_audit_is_labeled_interrupted_and_continued(
    inspector: Command, eraser: Command, night: Night
) -> None:
    drawn = inspector("audit", "sample", "--facility", "mall", "--faces", str(FACES), "--json")
    assert drawn.code == 0, drawn.err
    number = str(drawn.json["audit"]["audit_id"])
    with label(inspector, number, "--rater", "Anna") as (url, process):
        state = json.loads(get(f"{url}state"))
        assert (state["labeled"], state["total"]) == (0, FACES)
        seen = []
        for each in ("happy", "sad", "cannot_tell"):
            picture = get(f"{url}face/{state['number']}")
            assert decode_picture(picture).shape == (SIDE_PX, SIDE_PX, 3)
            seen.append(state["number"])
            state = post(f"{url}label", {"number": state["number"], "label": each})
        state = post(f"{url}back", {})
        assert state["number"] == seen.pop()
        said = end(process, signal.SIGINT)
    assert f"2 of {FACES} faces are labeled" in said
    assert not list(inspector.folder.rglob("*"))  # nothing is written
    assert f"continue with `fer-batch audit label {number} --rater Anna`" in said
    rows = night.query("select face_number, rater, label, labeled_by from fer.audit_label")
    assert {(row["face_number"], row["label"]) for row in rows} == {
        (seen[0], "happy"),
        (seen[1], "sad"),
    }
    assert {(row["rater"], row["labeled_by"]) for row in rows} == {("Anna", INSPECTOR)}

    with label(inspector, number, "--rater", "Anna") as (again, process):
        assert again != url  # another token
        state = json.loads(get(f"{again}state"))
        assert (state["labeled"], state["position"]) == (2, 3)
        assert state["number"] not in seen
        # An image that is erased while its face waits is not shown.
        (row,) = night.query("select * from fer.audit_face where face_number = %s", state["number"])
        image = ("--facility", "mall", "--key", row["image_key"], "--yes")
        erased = eraser("erase", *image)
        assert erased.code == 0, erased.err
        after = json.loads(get(f"{again}state"))
        assert after["number"] != state["number"]
        assert "1 face cannot be shown: the image was erased" in after["hidden"]
        said = end(process, signal.SIGTERM)
    assert "1 face cannot be shown" in said


def test_without_permission_or_port_nothing_is_served(inspector: Command, night: Night) -> None:
    drawn = inspector("audit", "sample", "--facility", "mall", "--faces", str(FACES), "--json")
    number = str(drawn.json["audit"]["audit_id"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = inspector("audit", "label", number, "--rater", "Anna", "--port", port)
        assert refused.code == 2
        assert f"cannot be served on 127.0.0.1:{port}" in refused.err
        assert "--port" in refused.err
    no_port = inspector("audit", "label", number, "--rater", "Anna", "--port", "70000")
    assert (no_port.code, "Traceback" in no_port.err) == (2, False)
    night.write_registry(format_facility("mall", permission=""))
    refused = inspector("audit", "label", number, "--rater", "Anna")
    assert refused.code == 2
    assert "mall may not be read: no permission is recorded" in refused.err
    assert refused.out == ""
