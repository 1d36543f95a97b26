"""No key is used twice, in any method.

Every call of `jax.random` notes the bits of the key that it was given, inside compiled
programs too. A key is spent once, by a draw or a split; or keys are folded out of it,
and then it is never spent: `split(key)[i]` and `fold_in(key, i)` are the same bits.
"""

import collections

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn
from jaxprob.bnn._mcmc import hmc as _hmc
from jaxprob.bnn._mcmc.blackjax_kernels import HMCInfo
from jaxprob.testing import LinearGaussian, simulated_ranks

from .modules import ROWS, make
from .test_every_module import METHODS, SGD, once

SPEND = ("split", "normal", "uniform", "bernoulli", "permutation", "randint", "gamma",
         "loggamma", "rademacher", "categorical", "bits", "exponential",
         "choice")  # fmt: skip


class Uses:
    """What was done with each key, by its bits."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.names = collections.defaultdict(list)

    def note(self, name, key):
        def write(bits):
            self.names[np.asarray(bits).tobytes()].append(name)

        if jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
            jax.debug.callback(write, jax.random.key_data(key))

    def twice(self):
        """Keys that were spent and used otherwise as well."""
        jax.effects_barrier()
        return [
            names
            for names in self.names.values()
            if len(names) > 1 and set(names) != {"fold_in"}
        ]


@pytest.fixture(scope="module")
def recorder():
    """Programs that are compiled from here on note their keys."""
    uses = Uses()
    with pytest.MonkeyPatch.context() as patch:
        for name in (*SPEND, "fold_in"):

            def noted(key, *args, name=name, plain=getattr(jax.random, name), **kwargs):
                uses.note(name, key)
                return plain(key, *args, **kwargs)

            patch.setattr(jax.random, name, noted)

        # How blackjax uses the key of a transition is not ours to judge. Its masked
        # loops would call again with the keys of chains that are done.
        def transition(key, place, *args, **kwargs):
            uses.note("transition", key)
            return place, HMCInfo(*[jnp.zeros_like(place.log_density)] * 4)

        patch.setattr(_hmc, "hmc_step", transition)
        eqx.clear_caches()
        jax.clear_caches()
        yield uses
    # `programs_are_dropped` unloads the programs that write here.


@pytest.fixture
def uses(recorder):
    recorder.clear()
    return recorder


def joint():
    return bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=ROWS)


def through(method, model, data, passes):
    """All that takes a key, each with one of its own, as `jaxprob.fit` gives them."""
    keys = jax.random.split(jax.random.key(5), 5)
    init_key, run_key, eval_key, posterior_key, draw_key = keys

    def train():
        arrays, static = eqx.partition(method.init(model, key=init_key), eqx.is_array)

        def step(arrays, number):
            state = eqx.combine(arrays, static)
            key = jax.random.fold_in(run_key, number)
            state, _ = method.update(state, data, key=key)
            return eqx.filter(state, eqx.is_array), None

        arrays, _ = jax.lax.scan(step, arrays, jnp.arange(passes))
        state = eqx.combine(arrays, static)
        if passes > 1:
            method.evaluate(state, data, key=eval_key)
        return state

    posterior = method.posterior(once(train), [data], key=posterior_key)
    once(lambda: posterior.sample(key=draw_key))


NESTED = {
    "a block that starts at random": lambda joint: bnn.Blocks(
        bnn.MAP(joint, SGD),
        {"weights.out": bnn.LowRankVI(joint, SGD), "weights.in": bnn.SGLD(
            joint, 1e-4, num_warmup=0, thin=1, num_draws=2)},
        num_steps=3,
    ),
    "members that start at random": lambda joint: bnn.DeepEnsemble(
        bnn.LowRankVI(joint, SGD), 3
    ),
    "members in a loop": lambda joint: bnn.DeepEnsemble(
        bnn.AnchoredMAP(joint, SGD), 3, members="loop"
    ),
    "an estimated divergence": lambda joint: bnn.MeanFieldVI(
        eqx.tree_at(lambda j: j.prior, joint, bnn.ScaleMixtureNormal()),
        SGD,
        num_samples=2,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:rank=3 leaves out")  # a rank that is too low
@pytest.mark.parametrize("name", [*METHODS, *NESTED])
def test_no_key_is_used_twice(uses, name):
    if name in ("Laplace, Kronecker", "Laplace, last layer"):
        model, data = make("mlp")  # has factors for all leaves
    else:
        model, data = make("own class")
    method = (METHODS | NESTED)[name](joint())
    uses.clear()  # of those that made the model
    # The noise of AnchoredMAP's targets is meant to be the same in every pass.
    anchored = name in ("AnchoredMAP", "members in a loop")
    through(method, model, data, passes=1 if anchored else 2)
    assert uses.names
    assert not uses.twice()


@pytest.mark.slow
def test_nor_where_running_statistics_are_refreshed(uses):
    """Samples and the noise of the pass over the data have keys of their own."""

    class Noisy(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __call__(self, x, state, *, key):
            x = self.first(x)
            return self.norm(x + jax.random.normal(key, x.shape), state)

    def build(key):
        return Noisy(
            eqx.nn.Linear(3, 1, key=key), eqx.nn.BatchNorm(1, "batch", mode="batch")
        )

    _, (x, y) = make("batch norm")
    y = y[:, None]
    model = bnn.Stateful(*eqx.nn.make_with_state(build)(jax.random.key(0)))
    method = bnn.SWAG(
        bnn.MAP(joint(), optax.sgd(0.05)), num_warmup=0, thin=1, num_samples=2
    )
    uses.clear()
    state = method.init(model, key=jax.random.key(6))
    for step in range(2):
        key = jax.random.fold_in(jax.random.key(7), step)
        state, _ = method.update(state, (x, y), key=key)
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    method.posterior(state, batches, key=jax.random.key(8))
    assert not uses.twice()


@pytest.mark.slow
def test_nor_in_predictions(uses):
    model, (x, _) = make("own class")
    posterior = bnn.bayesianize(model)
    uses.clear()
    likelihood = joint().likelihood
    key, sample_key = jax.random.split(jax.random.key(9))
    predictive = bnn.predict(posterior, likelihood, x, key=key, num_samples=3)
    predictive.sample(key=sample_key)
    assert not uses.twice()


@pytest.mark.slow
def test_nor_in_simulations(uses):
    problem = LinearGaussian.random(key=jax.random.key(0), num_data=5, dim=1)
    method = bnn.HMC(
        problem.log_joint(), num_warmup=0, num_draws=2, num_leapfrog=2, step_size=0.1
    )
    uses.clear()
    simulated_ranks(method, problem, key=jax.random.key(10), num_sims=3)
    assert not uses.twice()


@pytest.mark.slow
def test_a_key_used_twice_would_be_seen(uses):
    key = jax.random.key(0)
    jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(np.arange(3))
    assert not uses.twice()
    draw = jax.jit(lambda key: jax.random.normal(key))
    draw(jax.random.split(jax.random.key(1))[0])
    assert not uses.twice()
    # The bits of the split's first half: that key was folded out of it as well.
    draw(jax.random.fold_in(jax.random.key(1), 0))
    assert len(uses.twice()) == 2
