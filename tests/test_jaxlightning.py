"""What went wrong in JaxLightning's two examples, row by row, does not go wrong here.

Its Bayesian network and its score model are `examples/11_bands.py` and
`examples/03_diffusion_digits.py`. What is left out are lines that have no counterpart
(a sweep script, a parser of command lines, an unused network).
"""

import pathlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn, datasets, diffusion
from jaxprob.lightning import (
    ArrayDataModule,
    BNNModule,
    DiffusionModule,
    TabularDataModule,
)

from .lightning.scene import arrays, make_data, make_module, make_trainer
from .unhooked import unhooked

pytestmark = pytest.mark.filterwarnings(
    # Lightning's advice on settings that a short run does not need.
    "ignore:.*does not have many workers:UserWarning",
)


@pytest.fixture(scope="module")
def model():
    return eqx.nn.MLP(1, 1, 8, 4, jax.nn.gelu, key=jax.random.key(0))


@pytest.fixture(scope="module")
def joint():
    return bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.IsotropicNormal(1.0), 100)


# The Bayesian neural network.


def test_data_are_drawn_from_a_seed_and_both_axes_are_centred():
    one, again, other = (datasets.heteroscedastic(seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(one.y_train, again.y_train)
    assert not np.array_equal(one.y_train, other.y_train)
    split, _, _ = one.standardize()
    for values in (split.x_train, split.y_train):
        np.testing.assert_allclose(values.mean(), 0.0, atol=1e-6)
        np.testing.assert_allclose(values.std(), 1.0, atol=1e-5)


def test_validation_and_test_rows_are_not_training_rows():
    split = datasets.heteroscedastic()
    assert split.x_val is not None
    rows = [set(x[:, 0].tolist()) for x in (split.x_train, split.x_val, split.x_test)]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]


def test_batches_are_numpy_arrays_in_single_precision():
    data = TabularDataModule(datasets.heteroscedastic(), batch_size=64)
    (x, y), _ = jaxprob.unpack(next(iter(data.train_dataloader())))
    assert isinstance(x, np.ndarray)
    assert x.dtype == y.dtype == np.float32


@pytest.mark.slow
def test_every_scale_is_real_and_trained(model, joint):
    """`jnp.full(shape, -3)` made them integers, which no optimiser moved."""
    method = bnn.MeanFieldVI(joint, optax.adam(1e-2))
    state = method.init(model)
    before = bnn.random_leaves(state.model)
    batch = arrays(100)
    for step in range(3):
        state, _ = eqx.filter_jit(method.update)(state, batch, key=jax.random.key(step))
    assert len(before) == 10
    for path, leaf in bnn.random_leaves(state.model).items():
        assert jnp.issubdtype(leaf.rho.dtype, jnp.floating)
        assert np.all(np.asarray(leaf.rho) != np.asarray(before[path].rho)), path
    with unhooked(), pytest.raises(TypeError, match="never"):
        bnn.Gaussian(jnp.zeros(3), jnp.full(3, -3))


@pytest.mark.slow
def test_no_two_leaves_share_a_key(model):
    """Neither their initial means nor the noise of a draw."""
    tree = bnn.bayesianize(model, scale=1.0).tree
    leaves = bnn.random_leaves(tree)
    drawn = jaxprob.tree.paths(bnn.sample_leaves(tree, key=jax.random.key(3)))
    noise = {path: np.ravel(drawn[path] - leaf.mean) for path, leaf in leaves.items()}
    means = {path: np.ravel(leaf.mean) for path, leaf in leaves.items()}
    for found in (noise, means):
        starts = [tuple(values[:1].round(6)) for values in found.values()]
        assert len(set(starts)) == len(starts)


@pytest.mark.slow
def test_the_divergence_counts_biases_subclasses_and_any_prior(joint):
    class Own(bnn.BayesianLinear):
        pass

    make: Any = Own  # a subclass of a module has the constructor of its class
    layer = make(3, 2, key=jax.random.key(0), scale=0.2)
    prior = dist.Normal(0.0, 0.7)
    expected = sum(
        jnp.sum(dist.kl_divergence(dist.Normal(leaf.mean, leaf.scale), prior))
        for leaf in bnn.random_leaves(layer).values()
    )
    assert set(bnn.random_leaves(layer)) == {"layer.weight", "layer.bias"}
    np.testing.assert_allclose(
        bnn.kl(layer, bnn.IsotropicNormal(0.7)), expected, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "draws"), [(100, 1), (20, 1), (20, 5)])
def test_the_likelihood_is_weighed_once(model, joint, rows, draws):
    """In nats per row, whatever the batch and the number of draws."""
    method = bnn.MeanFieldVI(joint, optax.sgd(0.1), num_samples=draws, scale=1e-6)
    x, y = (values[:20] for values in arrays(100))
    repeated = tuple(np.tile(values, (rows // 20, 1)) for values in (x, y))
    update = eqx.filter_jit(method.update)
    _, info = update(method.init(model), repeated, key=jax.random.key(0))
    expected = np.mean(dist.Normal(jax.vmap(model)(x), 0.3).log_prob(y))
    np.testing.assert_allclose(info["nll"], -expected, rtol=1e-3)


def test_noise_is_a_part_of_the_likelihood_and_of_the_prediction():
    """There, the spread of five means stood for it, without its logarithm."""
    likelihood = bnn.HeteroscedasticNormal()
    narrow, wide = (likelihood(jnp.asarray([0.0, raw])) for raw in (-2.0, 2.0))
    # Where the mean is right a narrow scale is likelier; with squares alone it is not.
    zero = jnp.zeros(1)
    likelier, other = (np.asarray(law.log_prob(zero))[0] for law in (narrow, wide))
    assert likelier > other + 1.0
    net = eqx.nn.MLP(1, 2, 8, 1, key=jax.random.key(0))
    posterior = bnn.PointPosterior(net)
    predictive = bnn.predict(
        posterior, likelihood, np.zeros((3, 1), np.float32), key=jax.random.key(0)
    )
    np.testing.assert_allclose(predictive.epistemic, 0.0, atol=1e-6)
    assert np.all(np.asarray(predictive.aleatoric) > 0.01)


@pytest.mark.slow
def test_integers_in_a_model_are_no_parameters():
    class Counting(eqx.Module):
        weight: jax.Array
        count: jax.Array

        def __call__(self, x):
            return self.weight * x

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        return jnp.sum((model(example[0]) - example[1]) ** 2)

    learner = jaxprob.GradientDescent(loss, optax.adam(0.1))
    state = learner.init(Counting(jnp.ones(1), jnp.arange(3)))
    state, _ = learner.update(state, arrays(10), key=jax.random.key(0))
    np.testing.assert_array_equal(state.model.count, [0, 1, 2])
    assert float(state.model.weight[0]) != 1.0


def test_pictures_wait_for_nobody():
    folder = pathlib.Path(jaxprob.__file__).parent / "plot"
    sources = [path.read_text() for path in folder.glob("*.py")]
    assert len(sources) > 3
    assert not any("pyplot.show" in text or "plt.show" in text for text in sources)


@pytest.mark.slow
def test_the_bands_cover_what_they_say():
    """There, 68 to 76.5 % of the training rows were in the band of 95 %."""
    data = TabularDataModule(datasets.heteroscedastic(num_test=2000), batch_size=200)
    net = eqx.nn.MLP(1, 2, 20, 1, jnp.tanh, key=jax.random.key(0))
    prior = bnn.PriorByPath(
        {"layers.0": bnn.IsotropicNormal(3.0), "*": bnn.FanInNormal()}
    )
    joint = bnn.LogJoint(bnn.HeteroscedasticNormal(), prior, num_data=200)
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(2e-2)))
    rows = (data.split.x_train, data.split.y_train)
    state, _ = jaxprob.fit(
        method, net, rows, key=jax.random.key(1), num_steps=1500, batch_size=200,
        progress=False,
    )  # fmt: skip
    posterior = method.posterior(state, [rows], key=jax.random.key(2))
    predictive = bnn.predict(
        posterior, joint.likelihood, data.split.x_test, key=jax.random.key(3),
        num_samples=201,
    )  # fmt: skip
    lower, upper = predictive.interval(0.95)
    inside = (lower <= data.split.y_test) & (data.split.y_test <= upper)
    assert 0.90 < float(np.mean(inside)) < 0.99


# The bridge, which both use.


@pytest.mark.slow
def test_the_trainer_counts_steps_stops_and_saves_weights(tmp_path):
    module = make_module()
    trainer = make_trainer(tmp_path, max_steps=7, max_epochs=-1)
    trainer.fit(module, make_data())
    assert trainer.global_step == 7
    assert any("weight" in name for name in module.state_dict())


@pytest.mark.slow
def test_the_optimiser_goes_on_in_a_second_fit(tmp_path):
    module = make_module()
    for _ in range(2):
        make_trainer(tmp_path, max_steps=3).fit(module, make_data())
    assert int(module.state.opt_state[0].count) == 6


@pytest.mark.slow
def test_a_short_last_batch_weighs_by_its_rows(tmp_path):
    module = make_module()
    trainer = make_trainer(tmp_path)
    ragged, whole = (
        trainer.validate(module, make_data(batch_size=size), verbose=False)[0]
        for size in (16, 20)
    )
    # Noise in this loss is drawn anew for each batch; its scale is 0.05.
    assert ragged["val_loss"] == pytest.approx(whole["val_loss"], rel=0.2)

    @jaxprob.mean_loss
    def own(model, example, *, key):
        return jnp.sum((model(example[0], key=key) - example[1]) ** 2)

    module.learner = jaxprob.GradientDescent(own, optax.sgd(0.1))
    state, data = module.state, arrays(20, 1)
    found = [
        jaxprob.evaluate(
            module.learner, state, data, key=jax.random.key(0), batch_size=size
        )["loss"]
        for size in (16, 20)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bands", "score"])
def test_validation_trains_nothing(tmp_path, joint, kind):
    if kind == "bands":
        net = eqx.nn.MLP(1, 1, 8, 1, key=jax.random.key(0))
        module = BNNModule(bnn.MeanFieldVI(joint, optax.adam(0.1)), net, num_samples=4)
        data = make_data()
    else:
        module, data = score_module()
    before = module.state
    make_trainer(tmp_path).validate(module, data, verbose=False)
    assert eqx.tree_equal(module.state, before)


# The score model.


def score_module(seed=0):
    denoiser = diffusion.kidger_mixer(
        (1, 8, 8), patch_size=4, hidden_size=8, mix_patch_size=8, mix_hidden_size=8,
        num_blocks=1, key=jax.random.key(0),
    )  # fmt: skip
    learner = jaxprob.GradientDescent(diffusion.DenoisingLoss(), optax.adam(1e-3))
    module = DiffusionModule(
        learner, denoiser, shape=(1, 8, 8), num_previews=0, seed=seed
    )
    split, _, _ = datasets.digits().standardize(shared=True)
    x = split.x_train[:64, None]
    return module, ArrayDataModule(x, validation=x, batch_size=32)


def test_images_are_centred_and_samples_are_taken_back():
    split, scaler, _ = datasets.digits().standardize(shared=True)
    assert abs(float(split.x_train.mean())) < 1e-5
    pixels = scaler.inverse(split.x_train)
    np.testing.assert_allclose(pixels, datasets.digits().x_train, atol=1e-5)


@pytest.mark.slow
def test_the_seed_of_a_run_changes_it_and_repeats_it(tmp_path):
    def weights(seed):
        module, data = score_module(seed)
        make_trainer(tmp_path, max_steps=2).fit(module, data)
        return module.model

    one, again, other = weights(1), weights(1), weights(2)
    assert eqx.tree_equal(one, again)
    assert not eqx.tree_equal(one, other)


def test_data_come_from_the_folder_that_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images"):
        datasets.mnist(tmp_path)


@pytest.mark.slow
def test_what_is_required_can_be_installed():
    root = pathlib.Path(__file__).parents[1]
    for name in ("pyproject.toml", "constraints.txt"):
        assert "file:" not in (root / name).read_text()
