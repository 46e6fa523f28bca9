"""A valid registry, and fixtures that read a registry from its text."""

from __future__ import annotations

import pytest

from fer_batch.errors import ConfigurationError
from fer_batch.facilities import registry_file
from fer_batch.facilities.loading import load_registry
from fer_batch.settings import Settings

GOOD = """
[facility.mall]
name = "Mall"
time_zone = "Europe/Berlin"
image_kind = "crops"
"""
PERMISSION = """
[facility.mall.permission]
purpose = "Satisfaction"
lawful_basis = "Art. 6(1)(a) GDPR"
approved_by = "The data protection officer"
valid_until = 2026-06-30
"""


@pytest.fixture
def load(load_all):
    def load_text(text, **settings):
        registry = load_all(text, **settings)
        registry.check()
        return registry.facilities

    return load_text


@pytest.fixture
def load_all(tmp_path, monkeypatch):
    monkeypatch.setattr(registry_file, "RETRY_S", 0.0)  # a file that was just written may change

    def load_text(text, **settings):
        file = tmp_path / "facilities.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_registry(file, Settings(_env_file=None, **settings))

    return load_text


@pytest.fixture
def rejected(load, tmp_path):
    def get_message(text, **settings):
        with pytest.raises(ConfigurationError) as caught:
            load(text, **settings)
        assert str(tmp_path / "facilities.toml") in str(caught.value)
        return str(caught.value)

    return get_message
