"""Decoders: results as without them, and what an image that takes over its decoder cannot do."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from fer_batch.errors import ModelError, SandboxError
from fer_batch.imaging.decoding import ImageLimits
from fer_batch.imaging.faces import ExtractedFaces, FaceDetector, ImageKind, extract_faces
from fer_batch.imaging.headers import UndecodableImageError
from fer_batch.imaging.sandbox import handles
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.imaging.sandbox.memory import MemoryBudget
from fer_batch.records import Batch, FetchedImage, Image, ImageScore, Outcome
from fer_batch.settings import Settings
from tests.support import hostile_decoder, pictures
from tests.support.hostile_images import generate_hostile_images
from tests.support.repository import REPO_ROOT

SETTINGS = Settings(_env_file=None, decode_memory_mb=500)
LIMITS = ImageLimits.from_settings(SETTINGS)
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel confines nothing")


def has_every_layer() -> bool:
    """Whether this kernel offers Landlock and seccomp, asked without the code under test."""
    if sys.platform != "linux":
        return False
    create_ruleset, only_version = 444, 1
    version = ctypes.CDLL(None).syscall(create_ruleset, None, ctypes.c_size_t(0), only_version)
    return version > 0 and Path("/proc/sys/kernel/seccomp/actions_avail").exists()


def fetch(data: bytes, name: str = "a.jpg", facility_id: str = "mall") -> FetchedImage:
    return FetchedImage(Image(Batch(facility_id, date(2026, 3, 9)), name, "etag", 1), data)


def command(name: str) -> FetchedImage:
    return fetch(hostile_decoder.make_image(pictures.encode(pictures.draw_scene()), name), name)


@pytest.fixture(scope="module")
def honest() -> Iterator[Decoders]:
    with Decoders(SETTINGS) as started:
        yield started


@pytest.fixture(scope="module")
def hostile() -> Iterator[Decoders]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handles, "SERVER_MODULE", hostile_decoder.MODULE)
        with Decoders(SETTINGS.model_copy(update={"decode_memory_mb": 50})) as started:
            yield started


def describe(items: Sequence[ExtractedFaces | ImageScore]) -> list[object]:
    return [
        (item.width_px, item.height_px, item.faces, item.crops.tobytes())
        if isinstance(item, ExtractedFaces)
        else (item.outcome, item.reason)
        for item in items
    ]


def extract_here(data: bytes, kind: ImageKind, detector: FaceDetector) -> object:
    try:
        found = extract_faces(data, kind, LIMITS, detector)
    except UndecodableImageError as error:
        return (error.outcome, error.reason)
    return (found.width_px, found.height_px, found.faces, found.crops.tobytes())


@pytest.mark.parametrize("kind", ["crops", "frames"])
def test_the_results_are_those_of_decoding_in_this_process(
    honest: Decoders, shared_dir: Path, kind: ImageKind
) -> None:
    cases = [data for _, data, _ in generate_hostile_images()]
    folder = shared_dir / "data" / "photos"
    cases += [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:3]]
    detector = FaceDetector(SETTINGS)
    found = honest.extract([fetch(data) for data in cases], kind)
    assert describe(found) == [extract_here(data, kind, detector) for data in cases]


def test_pixels_are_those_of_decoding_in_this_process(honest: Decoders) -> None:
    scene = pictures.draw_scene(640, 480)
    pixels = honest.decode_pixels(fetch(pictures.encode(scene, ".png")))
    assert np.array_equal(pixels, scene)
    with pytest.raises(UndecodableImageError) as raised:
        honest.decode_pixels(fetch(b"<html>"))
    assert raised.value.outcome is Outcome.UNSUPPORTED


def test_many_threads_get_the_answers_to_their_own_images(honest: Decoders) -> None:
    images = [pictures.encode(pictures.draw_scene(40 + n, 60), ".png") for n in range(24)]

    def measure(number: int) -> list[int | None]:
        order = images[number:] + images[:number]
        return [item.width_px for item in honest.extract([fetch(d) for d in order], "crops")]

    with ThreadPoolExecutor(6) as threads:
        for number, widths in enumerate(threads.map(measure, range(24))):
            assert widths == [40 + (number + n) % 24 for n in range(24)]


# ---------------------------------------------------------------- what a decoder may do


@pytest.mark.skipif(not has_every_layer(), reason="this kernel has no Landlock or no seccomp")
def test_no_layer_is_missing_where_the_kernel_has_all(honest: Decoders) -> None:
    assert honest.find_missing() == ""


@ON_LINUX
@pytest.mark.parametrize("attempt", hostile_decoder.FORBIDDEN)
def test_from_inside_the_kernel_refuses(hostile: Decoders, attempt: str) -> None:
    (score,) = hostile.extract([command(attempt)], "crops")
    assert isinstance(score, ImageScore)
    assert (score.outcome, score.reason) == (Outcome.UNREADABLE, "Operation not permitted")


@ON_LINUX
def test_from_inside_there_are_two_pipes_and_no_environment(hostile: Decoders) -> None:
    found = hostile.extract([command(probe) for probe in hostile_decoder.PROBES], "crops")
    environment, descriptors = (item.reason for item in found if isinstance(item, ImageScore))
    assert environment == "succeeded: [{}, None]"
    assert descriptors.startswith("succeeded: [")
    assert len(descriptors.split(",")) == 2


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize("death", hostile_decoder.DEATHS)
def test_an_image_that_ends_its_decoder_costs_one_image(
    hostile: Decoders, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    if death in ("hang", "spin", "rubbish", "promise", "grow"):
        monkeypatch.setattr(handles, "IMAGE_DEADLINE_S", 1.0)
    valid = fetch(pictures.encode(pictures.draw_scene()))
    found = hostile.extract([valid, command(death), valid], "crops")
    assert [isinstance(item, ExtractedFaces) for item in found] == [True, False, True]
    assert isinstance(score := found[1], ImageScore)
    assert score.outcome is Outcome.DECODER_CRASHED
    assert score.reason


@pytest.mark.parametrize("lie", hostile_decoder.LIES)
def test_an_image_whose_decoder_lies_costs_one_image(hostile: Decoders, lie: str) -> None:
    valid = fetch(pictures.encode(pictures.draw_scene()))
    found = hostile.extract([valid, command(lie), valid], "crops")
    assert [isinstance(item, ExtractedFaces) for item in found] == [True, False, True]
    assert isinstance(score := found[1], ImageScore)
    assert score.outcome is Outcome.DECODER_CRASHED


def test_each_facility_has_decoders_of_its_own(honest: Decoders) -> None:
    image = pictures.encode(pictures.draw_scene())
    honest.extract([fetch(image, facility_id="a")], "crops")
    first = honest._local.decoder
    honest.extract([fetch(image, facility_id="a")], "crops")
    assert honest._local.decoder is first
    honest.extract([fetch(image, facility_id="b")], "crops")
    assert honest._local.decoder.process != first.process


def test_a_killed_server_is_started_again() -> None:
    image = fetch(pictures.encode(pictures.draw_scene()))
    with Decoders(SETTINGS) as started:
        started.extract([image], "crops")
        started._server._process.kill()
        started._server._process.wait()
        found = started.extract([image, image], "crops")
    assert all(isinstance(item, ExtractedFaces) for item in found)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_does_not_end_the_server(
    honest: Decoders, number: signal.Signals
) -> None:
    """A scoring process that finishes its work after SIGTERM still needs its decoders."""
    image = fetch(pictures.encode(pictures.draw_scene()))
    honest.extract([image], "crops")
    processes = [honest._server._process.pid, *(each.process for each in honest._decoders)]
    for process in processes:
        os.kill(process, number)
    with capture_logs() as lines:
        honest.extract([image], "crops")
    assert lines == []
    assert honest._server._process.poll() is None
    assert processes == [honest._server._process.pid, *(e.process for e in honest._decoders)]


@ON_LINUX
def test_a_process_that_has_decoders_writes_no_core_file_and_cannot_be_read() -> None:
    """As `predict`, `models compare` and a scoring process, which hold images and secrets."""
    code = """
import ctypes, resource
from fer_batch.imaging.sandbox.decoders import Decoders
from fer_batch.settings import Settings

with Decoders(Settings(_env_file=None)):
    print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO_ROOT
    )
    assert ended.stdout == "(0, 0) 0\n"


# ---------------------------------------------------------------- settings


def test_what_the_kernel_lacks_is_named_and_refused_if_required(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handles, "SERVER_MODULE", "tests.support.unconfined_decoder")
    image = fetch(pictures.encode(pictures.draw_scene()))
    with Decoders(SETTINGS) as preferred:
        assert "Landlock" in preferred.find_missing()
        assert "seccomp" in preferred.find_missing()
        (found,) = preferred.extract([image], "crops")
        assert isinstance(found, ExtractedFaces)
    required = SETTINGS.model_copy(update={"sandbox": "require"})
    with Decoders(required) as refused, pytest.raises(SandboxError, match="Landlock"):
        refused.extract([image], "crops")


def test_a_wrong_detector_file_is_an_error_of_the_model(tmp_path: Path) -> None:
    (file := tmp_path / "yunet.onnx").write_bytes(b"no model")
    image = fetch(pictures.encode(pictures.draw_scene()))
    wrong = SETTINGS.model_copy(update={"detector_file": file})
    with Decoders(wrong) as started, pytest.raises(ModelError, match="YuNet"):
        started.extract([image], "frames")


# ---------------------------------------------------------------- memory


def test_an_image_that_exceeds_the_budget_alone_is_too_large(honest: Decoders) -> None:
    large = pictures.encode(np.zeros((6000, 6000, 3), np.uint8), ".png")
    small = pictures.encode(pictures.draw_scene())
    with Decoders(SETTINGS.model_copy(update={"decode_memory_mb": 100})) as frugal:
        found = frugal.extract([fetch(large), fetch(small)], "crops")
    assert isinstance(score := found[0], ImageScore)
    assert score.outcome is Outcome.TOO_LARGE
    assert score.reason.endswith("decoding takes 324 MB; the limit is 100 MB")
    assert isinstance(found[1], ExtractedFaces)
    (decoded,) = honest.extract([fetch(large)], "crops")
    assert isinstance(decoded, ExtractedFaces)


def test_large_images_wait_for_each_other() -> None:
    large = fetch(pictures.encode(np.zeros((2000, 3000, 3), np.uint8), ".jpg"))
    frugal = Decoders(SETTINGS.model_copy(update={"decode_memory_mb": 60}))
    taken, most = 0, 0
    lock = threading.Lock()

    class CountingBudget(MemoryBudget):
        def take(self, size_bytes: int) -> None:
            nonlocal taken, most
            super().take(size_bytes)
            with lock:
                taken += size_bytes
                most = max(most, taken)

        def give_back(self, size_bytes: int) -> None:
            nonlocal taken
            with lock:
                taken -= size_bytes
            super().give_back(size_bytes)

    frugal._budget = CountingBudget(60_000_000)
    with frugal, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: frugal.extract([large], "crops"), range(5)))
    assert all(isinstance(item, ExtractedFaces) for items in found for item in items)
    assert most == 2000 * 3000 * 9
    assert taken == 0
