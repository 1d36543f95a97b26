"""The table of a posterior: exact values, names, text."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import bnn

from ...unhooked import unhooked


class Oscillator(eqx.Module):
    log_rates: jax.Array
    noise: jax.Array
    name: str = eqx.field(static=True, default="oscillator")


@pytest.fixture
def posterior(getkey):
    draws = Oscillator(jax.random.normal(getkey(), (4, 250, 2)), jnp.ones((4, 250)))
    nothing: Any = None
    return bnn.DrawsPosterior(draws, Oscillator(nothing, nothing))


def period(model):
    return 2 * jnp.pi / jnp.exp(model.log_rates[0])


def test_rows_are_leaves_and_functions_by_name(posterior):
    table = bnn.summarise(
        posterior,
        {"period": period, "both": lambda m: {"rates": jnp.exp(m.log_rates)}},
        probs=(0.25, 0.5),
    )
    assert table.names == (
        *("log_rates[0]", "log_rates[1]", "noise", "period"),
        *("both.rates[0]", "both.rates[1]"),
    )
    assert table.num_draws == 1000
    draws = np.asarray(posterior.draws.log_rates, np.float64)
    assert np.allclose(table["log_rates[1]"]["mean"], draws[..., 1].mean())
    assert np.allclose(table["log_rates[1]"]["sd"], draws[..., 1].std(ddof=1))
    periods = 2 * np.pi / np.exp(draws[..., 0])
    row = table["period"]
    assert np.allclose(row["25%"], np.quantile(periods, 0.25), rtol=1e-5)
    assert np.allclose(row["50%"], np.quantile(periods, 0.5), rtol=1e-5)
    assert np.allclose(row["rhat"], bnn.rhat(periods), rtol=1e-4)
    # A decreasing function of one parameter has the ranks of the parameter.
    assert np.isclose(row["ess_bulk"], table["log_rates[0]"]["ess_bulk"], rtol=1e-4)
    assert np.isnan(table["noise"]["rhat"])
    with pytest.raises(KeyError, match="'rate' is no row"):
        table["rate"]


def test_the_text_is_a_table(posterior):
    lines = repr(bnn.summarise(posterior)).splitlines()
    assert lines[0].split() == [
        *("mean", "sd", "5%", "50%", "95%", "rhat", "ess_bulk", "ess_tail"),
        *("of", "1000", "draws"),
    ]
    assert [line.split()[0] for line in lines[1:]] == [
        "log_rates[0]",
        "log_rates[1]",
        "noise",
    ]
    many = bnn.DrawsPosterior({"w": jnp.zeros((1, 4, 100))}, {"w": None})
    assert repr(bnn.summarise(many)).endswith("... and 60 more rows")


def test_a_posterior_that_is_no_list_is_sampled(getkey):
    model = Oscillator(jnp.zeros(2), jnp.asarray(3.0))
    posterior = bnn.bayesianize(model, scale=lambda path, leaf: jnp.asarray(0.1))
    with pytest.raises(ValueError, match="give key="):
        bnn.summarise(posterior)
    table = bnn.summarise(posterior, {"period": period}, key=getkey(), num_samples=2000)
    assert np.isclose(table["noise"]["mean"], 3.0, atol=0.02)
    assert np.isclose(table["noise"]["sd"], 0.1, rtol=0.1)
    assert np.isnan(table["period"]["rhat"])


def test_wrong_arguments(posterior):
    unnamed: Any = [period]
    with unhooked(), pytest.raises(TypeError, match="by name"):
        bnn.summarise(posterior, unnamed)
    with pytest.raises(ValueError, match="levels in"):
        bnn.summarise(posterior, probs=(5.0, 95.0))
    few = bnn.DrawsPosterior({"w": jnp.zeros((1, 3))}, {"w": None})
    with pytest.raises(ValueError, match="3 draws of each chain"):
        bnn.summarise(few)
