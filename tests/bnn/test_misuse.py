"""What cannot be meant is refused, with what would be: before a run, not after it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn

from ..unhooked import unhooked

SGD = optax.sgd(0.1)
LIKELIHOOD = bnn.NormalLikelihood(0.3)
JOINT = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=8)
X = jax.random.normal(jax.random.key(1), (8, 3))
Y = jnp.sin(X[:, 0])
KEY = jax.random.key(2)


def mlp():
    return eqx.nn.MLP(3, "scalar", 4, 1, key=jax.random.key(0))


def nuts(joint=JOINT, **kwargs):
    return bnn.NUTS(
        joint, num_warmup=2, num_draws=2, num_chains=1, initial="model", **kwargs
    )


CHOICES = {
    "MAP": lambda none: bnn.MAP(JOINT, SGD, random=none),
    "MeanFieldVI": lambda none: bnn.MeanFieldVI(JOINT, SGD, random=none),
    "Laplace": lambda none: bnn.Laplace(bnn.MAP(JOINT, SGD), where=none),
    "MatrixFreeLaplace": lambda none: bnn.MatrixFreeLaplace(
        bnn.MAP(JOINT, SGD), where=none
    ),
    "NUTS": lambda none: nuts(random=none),
    "Blocks": lambda none: bnn.Blocks(bnn.MAP(JOINT, SGD), {none: nuts()}),
}


@pytest.mark.parametrize("name", CHOICES)
def test_an_empty_choice_is_told_what_there_is(name):
    def none(path, leaf):
        return False

    with pytest.raises(ValueError, match=r"Choose among layers\.0\.weight, layers"):
        CHOICES[name](none).init(mlp(), key=KEY)


HOLD_RANDOM_LEAVES = {
    "MAP": bnn.MAP(JOINT, SGD),
    "IVON": bnn.IVON(JOINT, 0.1),
    "AnchoredMAP": bnn.AnchoredMAP(JOINT, SGD),
    "SWAG": bnn.SWAG(bnn.MAP(JOINT, SGD), num_warmup=0, thin=1),
    "SGLD": bnn.SGLD(JOINT, 1e-3, num_warmup=0, thin=1, num_draws=2),
    "NUTS": nuts(),
    "DeepEnsemble": bnn.DeepEnsemble(bnn.MAP(JOINT, SGD), 2),
}


@pytest.mark.parametrize("name", HOLD_RANDOM_LEAVES)
def test_random_leaves_get_no_second_posterior(name):
    """Scales of Gaussians would have been weights, with a prior of their own."""
    layer = bnn.BayesianLinear(3, 1, key=KEY)
    with pytest.raises(TypeError, match=r"layer\.weight is a random leaf already"):
        HOLD_RANDOM_LEAVES[name].init(layer, key=KEY)
    HOLD_RANDOM_LEAVES[name].init(bnn.mean_leaves(layer), key=KEY)


def test_the_prior_of_a_model_with_random_leaves_is_over_its_weights():
    layer = bnn.BayesianLinear(3, 1, key=KEY)
    prior = bnn.PriorModels(layer, bnn.IsotropicNormal(0.5))
    drawn = prior.sample(key=KEY)
    assert not bnn.random_leaves(drawn)
    plain = bnn.sample_prior(bnn.mean_leaves(layer), prior.prior, key=KEY)
    assert eqx.tree_equal(drawn, plain)
    assert not np.any(prior.mean().weight)


@pytest.mark.parametrize("rows", [7, 9])
def test_chains_need_the_rows_that_num_data_counts(rows):
    joint = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=rows)
    with pytest.raises(ValueError, match=f"8 rows and num_data is {rows}"):
        bnn.run_chains(nuts(joint), mlp(), (X, Y), key=KEY, progress=False)


@pytest.mark.slow
def test_a_step_size_that_nothing_adapts_is_what_to_lower():
    method = bnn.HMC(
        JOINT, num_leapfrog=4, num_warmup=0, num_draws=4, step_size=1e3, initial="model"
    )
    with pytest.raises(bnn.ChainError, match=r"Lower step_size=1000\.0"):
        bnn.run_chains(method, mlp(), (X, Y), key=KEY, progress=False)


@pytest.mark.slow
def test_a_run_on_disk_gives_the_draws_that_are_asked_for(tmp_path):
    def draws(num):
        method = bnn.SGLD(JOINT, 1e-3, num_warmup=0, thin=1, num_draws=num)
        return bnn.run_chains(
            method, mlp(), (X, Y), key=KEY, folder=tmp_path, progress=False
        )

    longer, shorter = draws(6), draws(4)
    assert longer.shape[1] == 6
    assert shorter.shape[1] == 4
    assert np.array_equal(
        shorter.draws.layers[0].weight, longer.draws.layers[0].weight[:, :4]
    )


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_model_that_starts_outside_of_the_numbers(value):
    model = eqx.tree_at(
        lambda m: m.layers[1].bias, mlp(), replace_fn=lambda b: b + value
    )
    with pytest.raises(ValueError, match=r"its leaf layers\.1\.bias is not finite"):
        bnn.MAP(JOINT, SGD).check(model, (X, Y))


def test_classes_where_their_instances_are_meant():
    log_joint: Any = bnn.LogJoint
    with unhooked():
        with pytest.raises(TypeError, match=r"likelihood=.*NormalLikelihood\(0\.3\)"):
            log_joint(bnn.NormalLikelihood, bnn.FanInNormal(), 8)
        with pytest.raises(TypeError, match=r"prior=.*FanInNormal\(\)"):
            log_joint(LIKELIHOOD, bnn.FanInNormal, 8)
        with pytest.raises(TypeError, match=r"prior=.*FanInNormal\(\)"):
            log_joint(LIKELIHOOD, dist.Normal, 8)
        with pytest.raises(TypeError, match=r"prior=1\.0"):
            log_joint(LIKELIHOOD, 1.0, 8)


def test_models_where_posteriors_are_meant():
    model: Any = mlp()
    with unhooked():
        with pytest.raises(TypeError, match=r"a MLP: .*PointPosterior\(model\)"):
            bnn.predict(model, LIKELIHOOD, X, key=KEY)
        with pytest.raises(TypeError, match=r"component 0 is a MLP: .*PointPosterior"):
            bnn.Mixture([model, model])


class Tied(eqx.Module):
    """The second layer uses the weights of the first once more."""

    shared: eqx.nn.Shared

    def __init__(self):
        first = eqx.nn.Linear(3, 3, key=jax.random.key(3))
        second = eqx.nn.Linear(3, 3, key=jax.random.key(4))
        self.shared = eqx.nn.Shared(
            (first, second), where=lambda p: p[1].weight, get=lambda p: p[0].weight
        )

    def __call__(self, x):
        first, second = self.shared()
        return jnp.sum(second(jnp.tanh(first(x))))


@pytest.mark.slow
def test_tied_weights_are_one_layer_of_two_uses():
    where = "shared.pytree.0"
    method = bnn.Laplace(bnn.MAP(JOINT, SGD), "kronecker", where=where)
    posterior = method.posterior(method.init(Tied()), [(X, Y)])
    assert isinstance(posterior.curvature, bnn.KroneckerCurvature)
    weight, bias = posterior.curvature.blocks
    assert weight.path == "shared.pytree.0.weight"
    assert (weight.shape, weight.bias_start) == ((1, 3, 3), None)
    # The second layer has another bias, so that of the first is a vector.
    assert (bias.path, bias.shape) == ("shared.pytree.0.bias", (1, 1, 3))
    method = bnn.Laplace(bnn.MAP(JOINT, SGD), where=where)
    whole = method.posterior(method.init(Tied()), [(X, Y)]).curvature
    assert isinstance(whole, bnn.FullCurvature)
    exact = whole.matrix
    assert np.allclose(bias.inputs[0], exact[9:, 9:], rtol=1e-5)
    trace = np.trace(weight.inputs[0]) * np.trace(weight.outputs[0])
    assert np.isclose(trace, np.trace(exact[:9, :9]), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_tied_weights_are_drawn_by_weight_alone(estimator: Any):
    method = bnn.MeanFieldVI(JOINT, SGD, estimator=estimator)
    with pytest.raises(ValueError, match=r"reads the weight .* estimator='weight'"):
        method.update(method.init(Tied()), (X, Y), key=KEY)
    method = bnn.MeanFieldVI(JOINT, SGD)
    _, info = method.update(method.init(Tied()), (X, Y), key=KEY)
    assert np.isfinite(info["loss"])


@pytest.mark.parametrize("number", [0.1, np.float32(0.1), jnp.float32(0.1)])
def test_one_precision_for_all_is_any_number(number):
    params = {"w": jnp.ones(3), "b": jnp.zeros(())}
    state: Any = bnn.ivon(0.1, 8, weight_decay=number).init(params)
    assert np.allclose(state.scale["w"], 1.0 / np.sqrt(8 * 1.1), rtol=1e-6)


@pytest.mark.slow
def test_rows_that_are_not_num_data_are_told_of():
    joint = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(), num_data=len(X) + 3)
    settings = {"key": KEY, "num_steps": 1, "progress": False}
    told = pytest.warns(UserWarning, match=rf"num_data={len(X) + 3}, .* {len(X)} rows")
    with told:
        jaxprob.fit(bnn.MAP(joint, SGD), mlp(), (X, Y), **settings)
    right = bnn.MAP(JOINT, SGD)
    # Of validation rows there may be any number.
    jaxprob.fit(right, mlp(), (X, Y), validation=(X[:3], Y[:3]), **settings)
