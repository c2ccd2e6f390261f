"""Runs a fast part of ``python -m tests.endurance``: hostile input to every loader."""

from tests.endurance import try_hostile


def test_hostile_input_is_refused_or_read_and_never_executed():
    found = try_hostile(2, seed=0)
    assert found["findings"] == []
    assert len(found["tried"]) == 16
    assert found["refused"].total() > found["read"].total()
