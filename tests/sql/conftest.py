"""Summaries of days written from called counts, as the tests of `satisfaction` write them."""

from __future__ import annotations

from tests.satisfaction.conftest import calendar

__all__ = ["calendar"]
