"""Figures of the benchmark of training quality that are known."""

import math

import pytest

from benchmarks.quality import time_to

CURVE = [(10.0, 100.0), (20.0, 10.0), (30.0, 20.0), (40.0, 1.0)]


@pytest.mark.parametrize(
    ("distance", "seconds"),
    [
        (200.0, 10.0),  # before the first look at it: no earlier than that
        (10.0**1.5, 15.0),
        (10.0, 20.0),
        (10.0**0.5, 35.0),  # from the best so far, not from the worse one between
        (1.0, 40.0),
    ],
)
def test_the_time_to_a_distance_is_on_lines_of_its_logarithm(distance, seconds):
    assert time_to(CURVE, distance) == pytest.approx(seconds)


def test_a_distance_that_was_not_reached_has_no_time():
    assert math.isnan(time_to(CURVE, 0.5))
