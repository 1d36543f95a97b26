"""Scores of weighted rows, missing entries, several targets and angles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn
from jaxprob.lightning import ArrayDataModule, BNNModule
from jaxprob.lightning._logging.predictive_metrics import PredictiveMetrics

OUTPUTS = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
WEIGHTS = np.array([2.0, 0.0, 1.0, 1.0])


def scores(outputs, likelihood, y, weights):
    metrics = PredictiveMetrics()
    metrics.add(bnn.Predictive(jnp.asarray(outputs), likelihood), y, weights)
    return metrics.means()


def test_a_weight_of_two_is_the_row_twice():
    likelihood = bnn.NormalLikelihood(0.5)
    rows = np.repeat(np.arange(4), WEIGHTS.astype(int))
    found = scores(OUTPUTS, likelihood, Y, WEIGHTS)
    expected = scores(OUTPUTS[rows], likelihood, Y[rows], np.ones(4))
    assert found.keys() == expected.keys() == {"predictive_nll", "rmse", "coverage_90"}
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6)


def test_missing_entries_do_not_count():
    likelihood = bnn.NormalLikelihood(0.5)
    observed = np.array([[True, True], [False, True], [True, False], [False, False]])
    found = scores(OUTPUTS, likelihood, (Y, observed), np.ones(4))
    error = (OUTPUTS.mean(1) - Y)[observed]
    np.testing.assert_allclose(found["rmse"], np.sqrt(np.mean(error**2)), rtol=1e-5)
    other = np.where(observed, Y, 1e6).astype(np.float32)
    again = scores(OUTPUTS, likelihood, (other, observed), np.ones(4))
    assert found == again


def test_each_of_several_targets_has_its_scores():
    likelihood = {"a": bnn.NormalLikelihood(0.5), "b": bnn.BernoulliLikelihood()}
    outputs = {"a": jnp.asarray(OUTPUTS), "b": jnp.asarray(OUTPUTS[..., 0])}
    predictive: Any = bnn.Predictive(outputs, bnn.JointLikelihood(likelihood))
    metrics = PredictiveMetrics()
    labels = np.array([True, False, True, True])
    metrics.add(predictive, {"a": Y, "b": labels}, np.ones(4))
    found = metrics.means()
    alone = scores(OUTPUTS, likelihood["a"], Y, np.ones(4))
    assert set(found) == {"predictive_nll", "rmse_a", "coverage_90_a", "accuracy_b"}
    np.testing.assert_allclose(found["rmse_a"], alone["rmse"], rtol=1e-6)
    right = (np.asarray(predictive["b"].probs) > 0.5) == labels
    assert found["accuracy_b"] == right.mean()


def test_errors_of_angles_go_the_short_way_round():
    vectors = np.array([[[-1.0, 0.01]]], np.float32)  # 0.01 below pi
    found = scores(
        vectors, bnn.VonMisesLikelihood(5.0), np.array([-3.14], np.float32), np.ones(1)
    )
    assert found["rmse"] < 0.02


@pytest.mark.slow
def test_a_trainer_takes_weights_and_masks(tmp_path):
    import equinox as eqx
    import pytorch_lightning as pl

    x = np.random.default_rng(2).normal(size=(10, 3)).astype(np.float32)
    y = np.where(x[:, :2] > 1.0, np.nan, x[:, :2]).astype(np.float32)
    weight = np.arange(10, dtype=np.float32) % 3
    rows = x, bnn.masked_targets(y), weight
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=10)
    module = BNNModule(
        bnn.MAP(joint, optax.adam(1e-2)), eqx.nn.Linear(3, 2, key=jax.random.key(0))
    )
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    data = ArrayDataModule(train=rows, validation=rows, predict=x, batch_size=4)
    trainer.fit(module, data)
    found = {k: float(v) for k, v in trainer.callback_metrics.items()}
    predictive = module.predictive(x)
    exact = PredictiveMetrics()
    exact.add(predictive, rows[1], weight.astype(float))
    np.testing.assert_allclose(
        found["val_predictive_nll"], exact.means()["predictive_nll"], rtol=1e-5
    )
    np.testing.assert_allclose(found["val_rmse"], exact.means()["rmse"], rtol=1e-5)
