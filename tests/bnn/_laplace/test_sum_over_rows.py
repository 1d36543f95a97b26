"""Sums over parts of the rows against the sum over all."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.bnn._laplace.sum_over_rows import (
    MAX_BYTES,
    batch_size_for,
    sum_over_rows,
)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 20])
def test_the_sum_does_not_depend_on_the_parts(batch_size):
    rows = jnp.arange(7.0) ** 2 + 1.0
    weights = jnp.array([1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0])

    def function(rows, weights):
        assert len(rows) <= batch_size
        return weights @ rows, jnp.sum(weights)

    total, count = sum_over_rows(function, rows, weights, batch_size)
    assert float(total) == float(np.asarray(rows) @ np.asarray(weights))
    assert float(count) == 6.0


def test_rows_at_a_time_fit_into_memory():
    assert batch_size_for(MAX_BYTES // 5, 100) == 5
    assert batch_size_for(MAX_BYTES // 5, 3) == 3
    assert batch_size_for(2 * MAX_BYTES, 100) == 1
    assert batch_size_for(0, 100) == 100
