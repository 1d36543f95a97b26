"""BNNModule: the figures it logs are those of the predictive distribution."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import pytorch_lightning as pl

import jaxprob
from jaxprob import bnn
from jaxprob.lightning import (
    ArrayDataModule,
    BNNModule,
    LearnerModule,
    TabularDataModule,
)
from jaxprob.lightning._logging.predictive_metrics import PredictiveMetrics

from ..scene import arrays, bits, make_learner, make_trainer, network


def regression(steps_per_dispatch=8):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=100)
    model = eqx.nn.MLP(1, 1, 16, 1, key=jax.random.key(0))
    return BNNModule(
        bnn.MeanFieldVI(joint, optax.adam(1e-2)),
        model,
        num_samples=16,
        steps_per_dispatch=steps_per_dispatch,
    )


def regression_data():
    return ArrayDataModule(
        train=arrays(100),
        validation=arrays(20, 1),
        test=arrays(20, 2),
        predict=arrays(20, 3)[0],
        batch_size=8,
    )


@pytest.mark.slow
def test_validation_logs_the_figures_of_the_mixture(tmp_path):
    module, data = regression(), regression_data()
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    found = trainer.validate(module, data, verbose=False)[0]

    log_prob, inside, squares = [], [], []
    for index, batch in enumerate(jaxprob.ArrayLoader(arrays(20, 1), batch_size=8)):
        (x, y), mask = jaxprob.unpack(batch)
        predictive = module.predictive(x, index=index)
        lower, upper = predictive.interval(0.9)
        log_prob.append(np.asarray(predictive.log_prob(y))[mask])
        inside.append(((np.asarray(lower) <= y) & (y <= np.asarray(upper)))[mask])
        squares.append(((np.asarray(predictive.mean) - y) ** 2)[mask])
    assert np.isclose(found["val_predictive_nll"], -np.mean(np.concatenate(log_prob)))
    assert np.isclose(found["val_coverage_90"], np.mean(np.concatenate(inside)))
    assert np.isclose(found["val_rmse"], np.sqrt(np.mean(np.concatenate(squares))))
    assert "val_elbo" in found


WHOLE = np.array([0, 2, 1, 1], np.int32)
BITS = np.array([[0, 1], [1, 0], [1, 1], [0, 0]])
REAL = np.array([[0.1, -0.3], [0.4, 0.2], [1.0, -1.0], [0.3, 0.1]], np.float32)
JUDGED = {
    "normal": (bnn.NormalLikelihood(0.5), REAL, "coverage_90"),
    "heteroscedastic": (bnn.HeteroscedasticNormal(), REAL[:, :1], "coverage_90"),
    "Student": (bnn.StudentTLikelihood(0.5), REAL, "coverage_90"),
    "classes": (bnn.CategoricalLikelihood(), WHOLE % 2, "accuracy"),
    "labels of 0 and 1": (bnn.BernoulliLikelihood(), BITS, "accuracy"),
    "floats of 0 and 1": (
        bnn.BernoulliLikelihood(), BITS.astype("f"), "accuracy"
    ),
    "booleans": (bnn.BernoulliLikelihood(), BITS > 0, "accuracy"),
    "counts": (bnn.PoissonLikelihood(), np.stack([WHOLE, WHOLE], 1), "coverage_90"),
    "correlated": (lambda f: dist.MultivariateNormal(f, jnp.eye(2)), REAL, "rmse"),
    "log-normal": (lambda f: dist.LogNormal(f, 0.3), np.exp(REAL), "coverage_90"),
}  # fmt: skip


@pytest.mark.parametrize("name", JUDGED)
def test_every_likelihood_is_judged_by_what_it_has(name):
    likelihood, y, figure = JUDGED[name]
    predictive = bnn.predict(
        bnn.PointPosterior(eqx.nn.Linear(1, 2, key=jax.random.key(0))),
        likelihood,
        np.linspace(-1.0, 1.0, 4, dtype=np.float32)[:, None],
        key=jax.random.key(1),
        num_samples=1,
    )
    metrics = PredictiveMetrics()
    metrics.add(predictive, y, np.array([1.0, 1.0, 1.0, 0.0]))
    found = metrics.means()
    classes = figure == "accuracy"
    assert ("rmse" in found) is not classes
    assert ("coverage_90" in found) is (figure == "coverage_90")
    mean = np.asarray(predictive.log_prob(y * 1))[:3].mean()
    assert np.isclose(found["predictive_nll"], -mean)
    if not classes:
        errors = (np.asarray(predictive.mean) - y)[:3]
        assert np.isclose(found["rmse"], np.sqrt(np.mean(errors**2)))


@pytest.mark.slow
def test_training_improves_the_predictive(tmp_path):
    module, data = regression(), regression_data()
    trainer = make_trainer(tmp_path, max_epochs=30)
    before = trainer.test(module, data, verbose=False)[0]
    trainer.fit(module, data)
    after = trainer.test(module, data, verbose=False)[0]
    assert after["test_rmse"] < before["test_rmse"]
    assert after["test_predictive_nll"] < before["test_predictive_nll"]


@pytest.mark.slow
def test_predict_gives_predictives_and_trains_nothing(tmp_path):
    module, data = regression(), regression_data()
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    before = bits(module)
    predictives: Any = trainer.predict(module, data)
    assert [p.num_rows for p in predictives] == [8, 8, 4]
    first = predictives[0]
    assert jnp.allclose(first.variance, first.epistemic + first.aleatoric)
    assert bits(module) == before


@pytest.mark.slow
def test_labels_get_an_accuracy(tmp_path):
    data = TabularDataModule("iris", batch_size=32)
    num = len(data.split.x_train)
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.FanInNormal(), num_data=num)
    model = eqx.nn.MLP(4, 3, 16, 1, key=jax.random.key(0))
    module = BNNModule(bnn.MAP(joint, optax.adam(3e-2)), model)
    trainer = make_trainer(tmp_path, max_epochs=60)
    trainer.fit(module, data)
    found = trainer.test(module, data, verbose=False)[0]
    probs = np.asarray(module.predictive(data.split.x_test).probs)
    right = np.mean(probs.argmax(axis=-1) == data.split.y_test)
    assert np.isclose(found["test_accuracy"], right, atol=1e-6)
    assert right > 0.85
    assert found["test_predictive_nll"] < np.log(3)


def test_a_learner_without_a_posterior_is_rejected():
    with pytest.raises(TypeError, match="LearnerModule"):
        BNNModule(make_learner(), network())


@pytest.mark.slow
def test_the_posterior_of_lightning_is_that_of_the_method(tmp_path):
    module, data = regression(), regression_data()
    make_trainer(tmp_path).fit(module, data)
    assert isinstance(module, LearnerModule)
    expected = module.inference.posterior(module.state).mean()
    assert eqx.tree_equal(module.posterior().mean(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["fit", "validate"])
def test_validation_waits_for_the_first_draw_of_a_sampler(tmp_path, when):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=100)
    method = bnn.SGLD(joint, 1e-4, num_warmup=15, thin=2, num_draws=4)
    model = eqx.nn.MLP(1, 1, 8, 1, key=jax.random.key(0))
    module = BNNModule(method, model, num_samples=4)
    trainer, seen = make_trainer(tmp_path), []
    if when == "validate":
        with pytest.raises(ValueError, match="no draw yet"):
            trainer.validate(module, regression_data(), verbose=False)
        return

    class Keep(pl.Callback):
        def on_validation_end(self, trainer, module):
            seen.append("val_predictive_nll" in trainer.callback_metrics)

    trainer = make_trainer(tmp_path, callbacks=[Keep()])
    trainer.fit(module, regression_data())
    # The sanity check, after 13 and after 26 steps.
    assert seen == [False, False, True]


class Rooted(eqx.Module):
    """`scale` enters through a square root: no gradient where an input is zero."""

    layer: eqx.nn.Linear
    scale: jax.Array

    def __call__(self, x):
        return self.layer(x) + jnp.sqrt(jnp.abs(self.scale * x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You have turned on .*detect_anomaly")
def test_a_broken_step_is_named_and_the_state_before_it_kept(tmp_path):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=96)

    def module():
        model = Rooted(eqx.nn.Linear(1, 1, key=jax.random.key(0)), jnp.ones(1))
        method = bnn.MeanFieldVI(joint, optax.adam(1e-2))
        return BNNModule(method, model, steps_per_dispatch=4)

    def data(bad):
        x = np.random.default_rng(0).uniform(1, 2, size=(96, 1)).astype(np.float32)
        y = x.copy()
        if bad is not None:
            x[8 * bad + 3] = 0.0
        return jaxprob.ArrayLoader((x, y), batch_size=8)  # in order

    leaves = ["scale.mean", "scale.rho"]
    broken, before = module(), module()
    trainer = make_trainer(tmp_path, detect_anomaly=True)
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        trainer.fit(broken, data(6))
    assert (caught.value.step, caught.value.leaves) == (6, leaves)
    assert "elbo is nan at step 7. step 6 broke the run" in str(caught.value)
    make_trainer(tmp_path, max_epochs=1, limit_train_batches=6).fit(before, data(None))
    assert bits(broken) == bits(before)
    assert np.isfinite(broken.posterior().mean().scale)
    with pytest.warns(UserWarning, match=r"step 6 broke the run.*at scale\.mean, sc"):
        make_trainer(tmp_path).fit(module(), data(6))
    # In the last step of a run no metric shows it.
    with pytest.warns(UserWarning, match="step 11 broke the run"):
        make_trainer(tmp_path, max_epochs=1).fit(module(), data(11))


class Scaled(eqx.Module):
    net: eqx.nn.Linear
    scale: jax.Array

    def __call__(self, x):
        return self.scale * self.net(x)


@pytest.mark.slow
def test_a_checkpoint_of_a_prior_with_an_edge_resumes_inside_the_support(tmp_path):
    prior = bnn.PriorByPath({"scale": dist.Gamma(2.0, 2.0), "*": bnn.FanInNormal()})
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), prior, num_data=100)
    method = bnn.MeanFieldVI(joint, optax.adam(1e-2))

    def module():
        net = eqx.nn.Linear(1, 1, key=jax.random.key(0))
        return BNNModule(method, Scaled(net, jnp.asarray(0.7)), num_samples=4, seed=0)

    def fit(module, folder, epochs, **kwargs):
        trainer = make_trainer(tmp_path / folder, max_epochs=epochs)
        trainer.fit(module, regression_data(), **kwargs)
        trainer.save_checkpoint(tmp_path / folder / "last.ckpt")
        return module

    whole = fit(module(), "whole", 2)
    fit(module(), "first", 1)
    path = tmp_path / "first" / "last.ckpt"
    resumed = fit(module(), "second", 2, ckpt_path=path)
    assert bits(resumed) == bits(whole)
    assert isinstance(resumed.model.scale, jax.Array)
    assert resumed.model.scale > 0
    assert resumed.model.scale != 0.7
