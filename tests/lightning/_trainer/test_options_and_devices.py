"""Options and devices of a Trainer, without a run."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pytorch_lightning.strategies import SingleDeviceStrategy

from jaxprob import Layout, tree
from jaxprob.lightning._trainer.devices import check_devices
from jaxprob.lightning._trainer.options import Options

from ..scene import arrays, make_learner, network


def step(options):
    """Size of one step of gradient descent with the rate 1."""
    learner = options.apply(make_learner(optax.sgd(1.0)))
    before = learner.init(network(), key=jax.random.key(0))
    after, _ = learner.update(before, arrays(8), key=jax.random.key(1))
    olds, news = (tree.paths(tree.partition(s.model, True)[0]) for s in (before, after))
    return optax.tree.norm([news[name] - olds[name] for name in olds]), [
        jnp.abs(news[name] - olds[name]).max() for name in olds
    ]


def test_a_gradient_is_clipped_before_the_optimiser():
    norm, _ = step(Options())
    assert norm > 0.2
    norm, _ = step(Options(clip=0.1))
    assert np.isclose(norm, 0.1, rtol=1e-5)
    _, largest = step(Options(clip=0.01, clip_algorithm="value"))
    assert np.isclose(max(largest), 0.01, rtol=1e-4)


def test_a_device_of_torch_is_rejected():
    def trainer(device):
        strategy = SingleDeviceStrategy(device=device)
        return types.SimpleNamespace(
            strategy=strategy, num_devices=1, num_nodes=1, world_size=1, global_rank=0
        )

    check_devices(trainer("cpu"), Layout())
    with pytest.raises(ValueError, match="chose cuda:0: torch's device"):
        check_devices(trainer("cuda:0"), Layout())
