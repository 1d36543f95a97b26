"""Schedules of kept draws against a count by hand."""

import numpy as np
import pytest

from jaxprob.bnn import CosineCycles
from jaxprob.bnn._mcmc.kept_draws import KeptDraws


@pytest.mark.parametrize(("num_warmup", "num_draws", "thin"), [(0, 3, 1), (5, 4, 3)])
def test_every_thin_th_update_after_warmup_is_kept(num_warmup, num_draws, thin):
    schedule = KeptDraws(num_warmup, num_draws, thin)
    kept = np.array([int(schedule.num_kept(k)) for k in range(schedule.num_steps + 1)])
    at = num_warmup + thin * np.arange(1, num_draws + 1)
    assert np.array_equal(np.flatnonzero(np.diff(kept)) + 1, at)
    assert schedule.first == at[0]
    assert schedule.num_steps == at[-1]


def test_draws_of_a_cycle_are_its_last_ones():
    cycles = CosineCycles(0.1, length=10, num_draws=2)
    schedule = KeptDraws(10, 4, 3, cycles)
    kept = np.array([int(schedule.num_kept(k)) for k in range(schedule.num_steps + 1)])
    assert np.array_equal(np.flatnonzero(np.diff(kept)) + 1, [17, 20, 27, 30])
    assert schedule.first == 17
    assert schedule.num_steps == 30
