"""Hostile names: whatever an object or a facility is called is data, never SQL, code or a path."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fer_batch import listing, registry
from fer_batch.errors import ConfigurationError
from fer_batch.settings import Settings
from fer_batch.storage import BucketReader, ListedObject
from fer_batch.uploading import upload_many
from tests.end_to_end.conftest import DAY, Night, crop, facility
from tests.hostile.conftest import GROWTH_MB, resident_mb
from tests.s3.conftest import Scripted, settings_of

KEYS = int(os.environ.get("FER_MANY_KEYS", "5000"))

MARK = "awkward"
"""A part of each hostile name, by which a file or a program that is called so is known."""

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
    "e\u0301",  # another spelling of the next one
    "\u00e9",
    "a\u0308\u0323",
    "\u0430",  # Cyrillic, and looks like a Latin a
    "\uff41",  # as wide as a Chinese character
    "\\N",  # what COPY takes for NULL
    "\\.",  # and for its end
    "a\tb",
    "true",
    "null",
    "-1",
    "--help",
    "%2F%2e%2e",
    "CON",
]
PATHS = ["%2e%2e/%2e%2e/awkward", "..awkward", ".awkward/...", "C:awkward"]
ALIKE = ["b/c", "b c", "b-c", "b.c", "b,c", "b0c", "b", "b/c/d", "b /c", "b- /c"]
"""They sort in another order wherever `/` is not compared as a byte."""

EVERYWHERE = [f"{MARK} {name}.png" for name in (*SQL, *CODE, *AWKWARD, *PATHS)]
EVERYWHERE += [f"alike/{name}" for name in ALIKE]
ONLY_MOTO = [  # SeaweedFS refuses or changes these
    *("a//b.png", "/a.png", "//", "a/./b.png", "../../../../tmp/awkward.png", "..", "a/..", "."),
    *("back\\slash.png", "folder/", "..\\..\\awkward.png"),
]
ONLY_SEAWEED = ["line\nbreak.png"]


def longest(prefix: str, character: str, segment_bytes: int = 1024) -> str:
    """The prefix with a name that makes the key as long as S3 allows, 1,024 bytes."""
    key, size = prefix, len(character.encode())
    in_segment = 0
    while (left := 1024 - len(key.encode())) > 0:
        some = "/" if in_segment + size > segment_bytes else character if size <= left else "x"
        in_segment = 0 if some == "/" else in_segment + len(some.encode())
        key += some
    return key


# ---------------------------------------------------------------- what must not happen

_watching: list[str] | None = None
_HARMLESS = ("socket.", "http.client.", "urllib.", "object.", "sys._getframe", "compile", "exec")


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watching is not None and not event.startswith(_HARMLESS) and MARK in repr(args):
        _watching.append(f"{event} {args!r}"[:200])


@contextmanager
def watched() -> Iterator[list[str]]:
    """What this process does meanwhile with files and programs of a hostile name.

    The test's own folder is called after the test, which must not hold the mark.
    """
    global _watching
    if not hasattr(sys, "_awkward_hook"):
        sys._awkward_hook = True  # type: ignore[attr-defined]  # a hook stays for good
        sys.addaudithook(_watch)
    found: list[str] = []
    _watching = found
    try:
        yield found
    finally:
        _watching = None


WATCH_CHILD = f"""
import os, sys

told = os.open({{tattle!r}}, os.O_CREAT | os.O_WRONLY | os.O_APPEND)


def watch(event, args):
    if not event.startswith({_HARMLESS!r}) and {MARK!r} in repr(args):
        os.write(told, f"{{{{event}}}} {{{{args!r}}}}\\n".encode(errors="replace"))


sys.addaudithook(watch)
os.write(told, b"watching\\n")
"""


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize("server", ["seaweedfs", "moto"])
def test_every_key_is_scored_under_its_own_name(
    night: Night,
    s3: Any,
    moto: str,
    scoring_process: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
) -> None:
    tattle = tmp_path / "tattle"
    scoring_process(WATCH_CHILD.format(tattle=str(tattle)))
    named = 'name = "Robert\'); DROP TABLE fer.image;-- <script>awkward</script>"'
    mall = facility("mall").replace('name = "mall"', named)
    prefix, names = f"mall/{DAY}/", [*EVERYWHERE]
    settings = night.settings
    if server == "moto":
        bucket = "hostile-names"
        where = f'endpoint = "{moto}"\nbucket = "{bucket}"\nkey_template = "m//{{capture_day}}/"\n'
        mall = mall.replace("target_share", where + "target_share")
        prefix, names = f"m//{DAY}/", names + ONLY_MOTO
        settings = settings_of(moto, bucket)
    else:
        names += ONLY_SEAWEED
    keys = [prefix + name for name in names]
    # SeaweedFS takes a backslash for a slash, and no longer part between two slashes than that.
    keys = keys if server == "moto" else [key for key in keys if "\\" not in key]
    segment_bytes = 1024 if server == "moto" else 255
    keys += [longest(prefix, c, segment_bytes) for c in ("x", "\u00e9", "\U0001f600", "'")]
    assert max(len(key.encode()) for key in keys) == 1024
    assert len(keys) == len(set(keys))
    images = [(key, crop(n % 2 == 0)) for n, key in enumerate(keys)]
    # SeaweedFS may lose one of two objects that are written at once if the key of one is a folder
    # of the other, so those come one after the other.
    upload_many(settings, settings.s3_bucket, [i for i in images if "/alike/" not in i[0]])
    for image in [*(i for i in images if "/alike/" in i[0]), (f"{prefix}marker/", b"")]:
        upload_many(settings, settings.s3_bucket, [image])
    night.registry(mall)
    in_no_order(monkeypatch)

    with watched() as seen:
        findings = night.with_settings(chunk_images=16).run(run_id="'; DROP TABLE fer.run; --")

    rows = night.rows("select image_key, outcome, reason from fer.image_result")
    assert {row["image_key"]: (row["outcome"], row["reason"]) for row in rows} == dict.fromkeys(
        keys, ("scored", "")
    )
    assert len(rows) == len(keys)
    assert night.summary("mall")["images"] == len(keys)
    assert [f for f in findings if f["severity"] == "error"] == []
    assert (seen, tattle.read_text()) == ([], "watching\n")
    (report,) = night.settings.report_dir.iterdir()
    assert "<script>awkward" not in report.read_text()


def in_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every listing of this process come in no order, and name a tenth of its keys twice."""
    real = BucketReader.list

    def shuffled(self: BucketReader, prefix: str) -> Iterator[ListedObject]:
        found = list(real(self, prefix))
        chosen = random.Random(7)
        found += chosen.sample(found, len(found) // 10)
        chosen.shuffle(found)
        return iter(found)

    monkeypatch.setattr(BucketReader, "list", shuffled)


@pytest.mark.timeout(1200)
def test_a_long_listing_in_no_order_is_all_there_in_the_memory_of_a_short_one(
    night: Night,
) -> None:
    numbers = list(range(KEYS))
    random.Random(3).shuffle(numbers)
    keys = [f"m/{DAY}/{'-/. '[n % 4]}{n:06}.png" for n in numbers]
    server = Scripted()
    pages = iter(())

    def answer(_: str) -> tuple[int, bytes]:
        n = next(pages, None)
        if n is None:
            return Scripted.listing()  # nothing comes after the last page
        is_last = n + 1000 >= len(keys)
        token = "" if is_last else str(n)
        page = [key.replace(" ", "%20") for key in keys[n : n + 1000]]
        return Scripted.listing(*page, is_truncated=not is_last, token=token)

    server.answer = answer
    where = f'endpoint = "{server.endpoint}"\nbucket = "bucket"\n'
    where += 'key_template = "m/{{capture_day}}/"\n'
    night.registry(facility("mall", more=where))
    run = night.open()
    run.sync_facilities()

    def look() -> listing.BatchListing:
        nonlocal pages
        pages = iter(range(0, len(keys), 1000))
        (found,) = run.list_images()
        return found

    first = look()
    before_mb = resident_mb()
    again = look()
    grown_mb = resident_mb() - before_mb
    shards = run.plan_shards()
    server.shutdown()
    server.server_close()
    listed = [row["image_key"] for row in night.rows("select image_key from fer.image")]
    print(f"{KEYS} keys in {len(shards)} shards, grown by {grown_mb:.1f} MB")  # noqa: T201

    assert (first.status, first.images, first.new_images) == ("listed", KEYS, KEYS)
    assert (again.status, again.images, again.new_images) == ("listed", KEYS, 0)
    assert sorted(listed) == sorted(keys)
    ranges = [key_range for shard in shards for key_range in shard.ranges]
    assert sum(r.image_count for r in ranges) == KEYS
    for r in ranges:  # in byte order, whatever the listing's order was
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
    "\u0131mall",  # a dotless i, which becomes an I
    "\u212aelvin",  # a Kelvin sign, which becomes a k
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
def test_a_facility_of_a_hostile_id_is_refused_by_the_registry(tmp_path: Path, name: str) -> None:
    quoted = '"' + "".join(f"\\U{ord(c):08x}" for c in name) + '"'
    path = tmp_path / "facilities.toml"
    path.write_text(facility("mall").replace("facility.mall", f"facility.{quoted}"))

    with pytest.raises(ConfigurationError, match="facility_id must match"):
        registry.load(path, Settings(_env_file=None))


def test_a_hostile_id_on_the_command_line_is_no_facility(night: Night, nightly: Any) -> None:
    night.registry(facility("mall"), facility("kelvin"), facility("imall"))
    night.fill("mall", 1, 0)
    assert nightly("list", "--capture-day", str(DAY)).code == 0
    before = night.snapshot()

    for name in IDS:
        ended = nightly("list", "--capture-day", str(DAY), f"--facility={name}")
        assert ended.code == 2, (name, ended)
        assert "no facility" in ended.err, (name, ended)

    for option in ("--time-zone", "--model-version"):
        for value in (IDS[0], "../../etc/passwd", "Europe/Berl\u0456n"):
            ended = nightly("score", "--capture-day", str(DAY), f"{option}={value}")
            assert ended.code == 2, (option, value, ended)
    assert night.snapshot() == before
    assert [path.name for path in nightly.folder.iterdir()] == []


def test_hostile_parameters_of_a_dag_are_no_facility_either(
    night: Night, nightly: Any, monkeypatch: pytest.MonkeyPatch, fer_command: Any
) -> None:
    night.registry(facility("mall"))
    night.fill("mall", 1, 0)
    for name, value in nightly.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fer_command, "_connection", lambda _: None)
    monkeypatch.setattr(fer_command, "time_limit", dict)
    monkeypatch.chdir(nightly.folder)
    day = f"--capture-day={DAY}"

    fer_command.run("facilities", "sync", "--json")
    for name in (IDS[0], "--rescore --facility=mall", "m\u0430ll", "$(touch awkward)"):
        with pytest.raises(fer_command.PermanentFailureError, match="no facility"):
            fer_command.run("list", day, f"--facility={name}", "--json")
    assert fer_command.run("list", day, "--facility=mall", "--json")[0]["images"] == 1
    assert [path.name for path in nightly.folder.iterdir()] == []
