"""A reader of a server with scripted responses."""

from __future__ import annotations

import pytest

from fer_batch.storage.reader import BucketReader


@pytest.fixture
def reader(scripted):
    with BucketReader(scripted.build_settings()) as reader:
        yield reader
