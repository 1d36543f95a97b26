"""Tests of the tricks themselves, also where `JAXPROB_PLAIN` turns them off."""

import pytest

from jaxprob._jaxpr import switches


@pytest.fixture(autouse=True)
def all_tricks_on(monkeypatch):
    monkeypatch.setattr(switches, "_OFF", set())
