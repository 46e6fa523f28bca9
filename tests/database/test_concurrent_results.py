"""Results that two sessions or two processes write at once, and chunks that fail."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fer_batch.database import results
from fer_batch.errors import DatabaseError

IMAGES = "SELECT *, xmin::text FROM fer.image_result ORDER BY image_key, model_version"
FACES = "SELECT *, xmin::text FROM fer.face_result ORDER BY image_key, face_index"


def test_two_sessions_writing_one_image_leave_one_set_of_rows(tables: Any) -> None:
    tables.list(["a.jpg"])
    (image,) = tables.list_work()
    with ThreadPoolExecutor(1) as pool, tables.transaction() as first:
        scores = [tables.build_score(image, *[tables.build_face()] * 2)]
        assert results.write_chunk(first, scores, tables.version, "run-1") == 1
        waiting = pool.submit(
            tables.write, tables.build_score(image, tables.build_face(0, 1)), run_id="run-2"
        )
        while not tables.is_anyone_waiting():
            assert not waiting.done()
        first.commit()
        assert waiting.result(30) == 0
    assert [(r.run_id, r.face_count) for r in tables.query(IMAGES)] == [("run-1", 2)]
    assert len(tables.query(FACES)) == 2


WRITER = """
import sys
from datetime import date
from fer_batch.database import connections, results
from fer_batch.records import *
url, run_id, faces = sys.argv[1], sys.argv[2], int(sys.argv[3])
batch = Batch("north-mall", date(2026, 3, 1))
face = FaceScore(Box(0, 0, 48, 48), 0.75, 0.125, 0.125, 0.5, CalledClass.HAPPY)
images = [Image(batch, f"{n:03d}.jpg", f"etag of {n:03d}.jpg", 1300) for n in range(200)]
rule = CallingRule(0.5, 0.4)
scores = [ImageScore.from_faces(i, 48, 48, (face,) * faces, rule) for i in images]
engine = connections.create_engine(url)
with connections.transaction(engine) as connection:
    print("ready", flush=True)
    sys.stdin.readline()
    print(results.write_chunk(connection, scores, "a" * 64, run_id), flush=True)
"""


def test_two_processes_writing_the_same_chunk_leave_one_set_of_rows(tables: Any) -> None:
    tables.list([f"{n:03d}.jpg" for n in range(200)])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, tables.url, f"run-{faces}", str(faces)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for faces in (1, 3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    written = sorted(int(writer.communicate(timeout=60)[0]) for writer in writers)
    assert written == [0, 200]
    assert tables.query(
        "SELECT count(*), count(DISTINCT run_id), sum(face_count) = (SELECT count(*)"
        " FROM fer.face_result) FROM fer.image_result"
    ) == [(200, 1, True)]


def test_chunk_that_fails_leaves_nothing(tables: Any) -> None:
    tables.list(["a.jpg", "b.jpg"])
    a, b = tables.list_work()
    with pytest.raises(DatabaseError):
        tables.write(
            tables.build_score(a), tables.build_score(b, tables.build_face(0.75, float("nan")))
        )
    assert tables.query(IMAGES) == []
    with pytest.raises(DatabaseError):
        tables.write(tables.build_score(a), tables.build_score(a))
    assert tables.query(IMAGES) == []


def test_chunk_of_several_batches_is_written_whole(tables: Any) -> None:
    other = tables.add("outlet")
    tables.list(["a.jpg"])
    tables.list(["a.jpg"], other)
    assert tables.write(*map(tables.build_score, tables.list_work() + tables.list_work(other))) == 2
    assert tables.list_work() == tables.list_work(other) == []
    assert tables.write() == 0
