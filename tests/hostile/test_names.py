"""Hostile names of objects and facilities are data, and never used as SQL, code or a path."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.facilities.loading import load_registry
from fer_batch.pipeline import listing
from fer_batch.pipeline.selection import Selection
from fer_batch.settings import Settings
from fer_batch.storage.listing_pages import ListedObject
from fer_batch.storage.reader import BucketReader
from fer_batch.storage.writer import upload_many
from tests.fixtures.night import DAY, Night, encode_crop, format_facility
from tests.fixtures.s3 import Scripted, build_s3_settings
from tests.hostile.conftest import GROWTH_MB, measure_resident_mb

KEYS = int(os.environ.get("FER_MANY_KEYS", "5000"))

MARK = "awkward"
"""A part of each hostile name that identifies any file or program with such a name."""

SQL = [
    "'; DROP TABLE fer.image; --",
    '"; DELETE FROM fer.image_result; --',
    "$$; SELECT pg_sleep(60); $$",
    "' OR '1'='1",
    "\\'; COMMIT; --",
    "%s %(key)s {} {0} :facility_id",
    "x',1),('y",
]
CODE = [
    "$(touch awkward) `touch awkward` ; touch awkward | touch awkward",
    "<script>alert('awkward')</script>",
    "{{ 7 * 7 }}{% raw %}",
    "__import__('os').system('touch awkward')",
    "=cmd|' /c calc'!A1",
]
AWKWARD = [
    *(chr(n) for n in range(0x20, 0x7F) if chr(n) != "/"),
    *"\t\r\x01\x1b\x7f\x85\xa0\xad",
    *"\u200b\u200e\u202e\u2028\u2060\ufeff\ufffd\ue000\U0001f600\U0010ffff",
    "e\u0301",  # another Unicode form of the next one
    "\u00e9",
    "a\u0308\u0323",
    "\u0430",  # Cyrillic, and looks like a Latin a
    "\uff41",  # full-width a
    "\\N",  # NULL for COPY
    "\\.",  # the end of the data for COPY
    "a\tb",
    "true",
    "null",
    "-1",
    "--help",
    "%2F%2e%2e",
    "CON",
]
PATHS = ["%2e%2e/%2e%2e/awkward", "..awkward", ".awkward/...", "C:awkward"]
SIMILAR = ["b/c", "b c", "b-c", "b.c", "b,c", "b0c", "b", "b/c/d", "b /c", "b- /c"]
"""These sort in a different order where `/` is not compared as a byte."""

ON_BOTH_SERVERS = [f"{MARK} {name}.png" for name in (*SQL, *CODE, *AWKWARD, *PATHS)]
ON_BOTH_SERVERS += [f"similar/{name}" for name in SIMILAR]
ONLY_MOTO = [  # SeaweedFS refuses or changes these
    *("a//b.png", "/a.png", "//", "a/./b.png", "../../../../tmp/awkward.png", "..", "a/..", "."),
    *("back\\slash.png", "folder/", "..\\..\\awkward.png"),
]
ONLY_SEAWEED = ["line\nbreak.png"]


def build_longest_key(prefix: str, character: str, segment_bytes: int = 1024) -> str:
    """A key with this prefix and the maximum length of S3, 1,024 bytes."""
    key, size = prefix, len(character.encode())
    in_segment = 0
    while (left := 1024 - len(key.encode())) > 0:
        piece = "/" if in_segment + size > segment_bytes else character if size <= left else "x"
        in_segment = 0 if piece == "/" else in_segment + len(piece.encode())
        key += piece
    return key


# ---------------------------------------------------------------- audit of hostile names

_recorded: list[str] | None = None
_HARMLESS = ("socket.", "http.client.", "urllib.", "object.", "sys._getframe", "compile", "exec")


def _record(event: str, args: tuple[Any, ...]) -> None:
    if _recorded is not None and not event.startswith(_HARMLESS) and MARK in repr(args):
        _recorded.append(f"{event} {args!r}"[:200])


@contextmanager
def recorded_audit_events() -> Iterator[list[str]]:
    """The audit events of this process about files and programs with a hostile name.

    The folder of a test has the name of the test, which must not contain `MARK`.
    """
    global _recorded
    if not hasattr(sys, "_awkward_hook"):
        sys._awkward_hook = True  # type: ignore[attr-defined]  # hooks cannot be removed
        sys.addaudithook(_record)
    events: list[str] = []
    _recorded = events
    try:
        yield events
    finally:
        _recorded = None


RECORD_IN_CHILD = f"""
import os, sys

events = os.open({{events_file!r}}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def record(event, args):
    if not event.startswith({_HARMLESS!r}) and {MARK!r} in repr(args):
        os.write(events, f"{{{{event}}}} {{{{args!r}}}}\\n".encode(errors="replace"))


sys.addaudithook(record)
os.write(events, b"recording\\n")
"""


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_each_hostile_key_is_scored_under_its_exact_name(
    night: Night,
    s3: Any,
    moto: str,
    scoring_process: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
) -> None:
    events_file = tmp_path / "events"
    scoring_process(RECORD_IN_CHILD.format(events_file=str(events_file)))
    named = 'name = "Robert\'); DROP TABLE fer.image;-- <script>awkward</script>"'
    mall = format_facility("mall").replace('name = "mall"', named)
    prefix, names = f"mall/{DAY}/", [*ON_BOTH_SERVERS]
    settings = night.settings
    if server == "moto":
        bucket = "hostile-names"
        bucket_keys = (
            f'endpoint = "{moto}"\nbucket = "{bucket}"\nkey_template = "m//{{capture_day}}/"\n'
        )
        mall = mall.replace("target_rate", bucket_keys + "target_rate")
        prefix, names = f"m//{DAY}/", names + ONLY_MOTO
        settings = build_s3_settings(moto, bucket)
    else:
        names += ONLY_SEAWEED
    keys = [prefix + name for name in names]
    # SeaweedFS converts a backslash to a slash, and limits a path segment to 255 bytes.
    keys = keys if server == "moto" else [key for key in keys if "\\" not in key]
    segment_bytes = 1024 if server == "moto" else 255
    keys += [
        build_longest_key(prefix, c, segment_bytes) for c in ("x", "\u00e9", "\U0001f600", "'")
    ]
    assert max(len(key.encode()) for key in keys) == 1024
    assert len(keys) == len(set(keys))
    images = [(key, encode_crop(n % 2 == 0, number=n)) for n, key in enumerate(keys)]
    # SeaweedFS may lose one of two objects that are written concurrently if the key of one is a
    # folder of the other, so these are written one by one.
    upload_many(settings, settings.s3_bucket, [i for i in images if "/similar/" not in i[0]])
    for image in [*(i for i in images if "/similar/" in i[0]), (f"{prefix}marker/", b"")]:
        upload_many(settings, settings.s3_bucket, [image])
    night.write_registry(mall)
    shuffle_listings(monkeypatch)

    with recorded_audit_events() as events:
        findings = night.with_settings(chunk_images=16).run(run_id="'; DROP TABLE fer.run; --")

    rows = night.query("select image_key, outcome, reason from fer.image_result")
    assert {row["image_key"]: (row["outcome"], row["reason"]) for row in rows} == dict.fromkeys(
        keys, ("scored", "")
    )
    assert len(rows) == len(keys)
    assert night.read_summary("mall")["images"] == len(keys)
    assert [f for f in findings if f["severity"] == "error"] == []
    assert (events, events_file.read_text()) == ([], "recording\n")
    reports = list(night.settings.report_dir.iterdir())
    assert len(reports) == 2  # the day, and the index
    assert not any("<script>awkward" in report.read_text() for report in reports)


def shuffle_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Return the listings of this process in random order, with a tenth of their keys twice."""
    real = BucketReader.list

    def shuffled(self: BucketReader, prefix: str) -> Iterator[ListedObject]:
        objects = list(real(self, prefix))
        rng = random.Random(7)
        objects += rng.sample(objects, len(objects) // 10)
        rng.shuffle(objects)
        return iter(objects)

    monkeypatch.setattr(BucketReader, "list", shuffled)


@pytest.mark.timeout(1200)
def test_a_long_unordered_listing_is_complete_and_needs_constant_memory(
    night: Night,
) -> None:
    numbers = list(range(KEYS))
    random.Random(3).shuffle(numbers)
    keys = [f"m/{DAY}/{'-/. '[n % 4]}{n:06}.png" for n in numbers]
    server = Scripted()
    pages: Iterator[int] = iter(())

    def respond(_: str) -> tuple[int, bytes]:
        n = next(pages, None)
        if n is None:
            return Scripted.build_listing()  # after the last page
        is_last = n + 1000 >= len(keys)
        token = "" if is_last else str(n)
        page = [key.replace(" ", "%20") for key in keys[n : n + 1000]]
        return Scripted.build_listing(*page, is_truncated=not is_last, token=token)

    server.respond = respond
    bucket_keys = f'endpoint = "{server.endpoint}"\nbucket = "bucket"\n'
    bucket_keys += 'key_template = "m/{{capture_day}}/"\n'
    night.write_registry(format_facility("mall", more=bucket_keys))
    run = night.open()
    run.sync_facilities()

    def list_once() -> listing.BatchListing:
        nonlocal pages
        pages = iter(range(0, len(keys), 1000))
        (batch_listing,) = run.list_images()
        return batch_listing

    first = list_once()
    before_mb = measure_resident_mb()
    again = list_once()
    grown_mb = measure_resident_mb() - before_mb
    shards = run.plan_shards()
    server.shutdown()
    server.server_close()
    listed = [row["image_key"] for row in night.query("select image_key from fer.image")]
    print(f"{KEYS} keys in {len(shards)} shards, grown by {grown_mb:.1f} MB")  # noqa: T201

    assert (first.status, first.images, first.new_images) == ("listed", KEYS, KEYS)
    assert (again.status, again.images, again.new_images) == ("listed", KEYS, 0)
    assert sorted(listed) == sorted(keys)
    ranges = [key_range for shard in shards for key_range in shard.ranges]
    assert sum(r.image_count for r in ranges) == KEYS
    for r in ranges:  # in byte order, which the listing was not
        inside = [k for k in listed if r.first_key.encode() <= k.encode() <= r.last_key.encode()]
        assert len(inside) == r.image_count
    assert grown_mb < GROWTH_MB


# ---------------------------------------------------------------- facilities

IDS = [
    "mall'; DROP TABLE fer.image; --",
    'mall"; DROP TABLE fer.image; --',
    "mall; rm -rf .",
    "$(touch awkward)",
    "`touch awkward`",
    "../mall",
    "/etc/passwd",
    "mall/../other",
    "mall\n",
    "mall\t",
    "mall ",
    " mall",
    "MALL",
    "m\u0430ll",  # Cyrillic
    "\uff4dall",
    "mall\u200b",
    "\u202emall",
    "ma\u0301ll",
    "\u0131mall",  # a dotless i, whose upper case is I
    "\u212aelvin",  # a Kelvin sign, whose lower case is k
    "mall%",
    "mall_%",
    "--rescore",
    "-h",
    "{facility_id}",
    "%s",
    "*",
    "",
]


@pytest.mark.parametrize("name", IDS)
def test_the_registry_rejects_hostile_facility_ids(tmp_path: Path, name: str) -> None:
    quoted = '"' + "".join(f"\\U{ord(c):08x}" for c in name) + '"'
    path = tmp_path / "facilities.toml"
    path.write_text(format_facility("mall").replace("facility.mall", f"facility.{quoted}"))

    with pytest.raises(ConfigurationError, match="facility_id must match"):
        load_registry(path, Settings(_env_file=None)).check()


ON_THE_COMMAND_LINE = [
    IDS[0],
    "$(touch awkward)",
    "../mall",
    "mall\n",
    "\u212aelvin",
    "--rescore",
    "",
]


def test_a_run_selects_no_facility_by_a_hostile_id(tmp_path: Path) -> None:
    path = tmp_path / "facilities.toml"
    facilities = (format_facility(name) for name in ("mall", "kelvin", "imall"))
    path.write_text("\n".join(facilities))
    registry = load_registry(path, Settings(_env_file=None))
    for name in IDS:
        selection = Selection(run_id="r", capture_day=DAY, facility_ids=(name,))
        with pytest.raises(ConfigurationError, match="no facility"):
            selection.select_facilities(registry)


def test_the_command_line_rejects_hostile_facility_ids(night: Night, nightly: Any) -> None:
    night.write_registry(
        format_facility("mall"), format_facility("kelvin"), format_facility("imall")
    )
    night.fill("mall", 1, 0)
    assert nightly("list-images", "--capture-day", str(DAY)).code == 0
    before = night.read_snapshot()

    for name in ON_THE_COMMAND_LINE:
        result = nightly("list-images", "--capture-day", str(DAY), f"--facility={name}")
        assert result.code == 2, (name, result)
        assert "no facility" in result.err, (name, result)

    for option, value in (
        ("--time-zone", IDS[0]),
        ("--time-zone", "Europe/Berl\u0456n"),
        ("--model-version", IDS[0]),
        ("--model-version", "../../etc/passwd"),
    ):
        result = nightly("score", "--capture-day", str(DAY), f"{option}={value}")
        assert result.code == 2, (option, value, result)
    assert night.read_snapshot() == before
    assert [path.name for path in nightly.folder.iterdir()] == []


def test_dag_parameters_with_hostile_facility_ids_are_rejected(
    night: Night, nightly: Any, monkeypatch: pytest.MonkeyPatch, fer_command: Any
) -> None:
    night.write_registry(format_facility("mall"))
    night.fill("mall", 1, 0)
    for name, value in nightly.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("fer_settings._get_connection", lambda _: None)
    monkeypatch.setattr("fer_settings.compute_time_limit", dict)
    monkeypatch.chdir(nightly.folder)
    day = f"--capture-day={DAY}"
    secrets = [fer_command.Secrets.IMAGES]

    fer_command.run_command("facilities", "sync", "--json")
    for name in (IDS[0], "--rescore --facility=mall", "m\u0430ll", "$(touch awkward)"):
        with pytest.raises(fer_command.PermanentFailureError, match="no facility"):
            fer_command.run_command(
                "list-images", day, f"--facility={name}", "--json", secrets=secrets
            )
    [listed] = fer_command.run_command(
        "list-images", day, "--facility=mall", "--json", secrets=secrets
    )
    assert listed["images"] == 1
    assert [path.name for path in nightly.folder.iterdir()] == []
