"""Runs a fast part of ``python -m tests.fuzz``: damaged files of every kind."""

from tests.fuzz import fuzz


def test_damaged_files_are_read_or_refused():
    found = fuzz(25, seed=1)
    assert found["findings"] == []
    assert len(found["tried"]) == 18
    assert all(found["refused"][kind] > 3 for kind in found["tried"])
