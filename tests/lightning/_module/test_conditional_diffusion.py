"""Class-conditional training through Lightning, and sampling from it with guidance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import jaxprob
from jaxprob.diffusion import VE, DenoisingLoss, ExpAB, Guided, Preconditioned, nn
from jaxprob.lightning import ArrayDataModule, DiffusionModule

from ..scene import predicted

SHAPE = (1, 2, 4)
CENTRES = np.array([-1.0, 0.0, 1.0], np.float32)


def rows(num=600):
    """Class k is the image of all m_k with noise of 0.2."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, num).astype(np.int32)
    noise = 0.2 * rng.normal(size=(num, *SHAPE))
    return (CENTRES[labels][:, None, None, None] + noise).astype(np.float32), labels


def make_module(**kwargs):
    net = nn.AdaptiveMixer2d(
        SHAPE, 2, 16, 16, 32, 1, num_classes=3, key=jax.random.key(0)
    )
    learner = jaxprob.GradientDescent(
        DenoisingLoss(cond_dropout=0.2), optax.adam(3e-3), ema=jaxprob.EMA(0.98)
    )
    return DiffusionModule(
        learner,
        Preconditioned(net, VE(0.01, 20.0)),
        shape=SHAPE,
        sampler=ExpAB(8),
        conditional=True,
        **kwargs,
    )


@pytest.mark.slow
def test_a_trained_class_is_drawn_and_guidance_sharpens_it(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    module = make_module(
        preview_cond=np.arange(3), guidance=1.0, previews_every_n_epochs=5
    )
    trainer = pl.Trainer(
        max_epochs=250,
        accelerator="cpu",
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    trainer.fit(module, ArrayDataModule(train=rows(), batch_size=100))
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0})
    events.Reload()
    assert len(events.Images("samples")) == 50

    asked = np.repeat(np.arange(3), 64)
    loader = jaxprob.ArrayLoader(asked, batch_size=96)
    guided = predicted(trainer, module, loader)
    module.guidance = 0.0
    plain = predicted(trainer, module, loader)

    def distances(x):
        means = x.mean(axis=(1, 2, 3)).reshape(3, 64)
        return np.abs(means - CENTRES[:, None])

    # By chance it would be a third.
    assert (distances(plain) < 0.5).mean() > 0.97
    # The free model draws them all: the condition did it.
    nothing = nn.Condition(np.zeros(192, np.int32), np.zeros(192, bool))
    free = module.sample(192, cond=nothing).x_0
    near = np.abs(np.asarray(free).mean(axis=(1, 2, 3))[:, None] - CENTRES).argmin(1)
    assert min(np.bincount(near, minlength=3)) > 30
    # Classes at the ends move out, away from the one between: the same noise, guided.
    before, after = (x.mean(axis=(1, 2, 3)) for x in (plain, guided))
    moves = np.concatenate([(before - after)[:64], (after - before)[128:]])
    assert moves.mean() > 5 * moves.std() / np.sqrt(len(moves))


@pytest.mark.slow
def test_conditions_are_checked_before_training():
    with pytest.raises(ValueError, match="cond row 1 is class 5"):
        make_module(preview_cond=np.array([0, 5]))
    module = make_module()
    with pytest.raises(ValueError, match="acts on a condition"):
        DiffusionModule(module.learner, module.model, shape=SHAPE, guidance=1.0)


@pytest.mark.slow
def test_guidance_needs_a_loss_that_leaves_conditions_out():
    """Or a network that was trained with one before."""
    module = make_module()
    never = jaxprob.GradientDescent(DenoisingLoss(), optax.adam(3e-3))
    settings = {"shape": SHAPE, "conditional": True, "guidance": 1.0}
    with pytest.raises(ValueError, match=r"write DenoisingLoss\(cond_dropout=0.1\)"):
        DiffusionModule(never, module.model, **settings)
    DiffusionModule(module.learner, module.model, **settings)
    trained = eqx.tree_at(
        lambda d: d.net.embedding.nothing, module.model, replace_fn=jnp.ones_like
    )
    DiffusionModule(never, trained, **settings)

    class Other(eqx.Module):
        scale: jax.Array

        def __call__(self, x, c, cond=None, *, key=None):
            return self.scale * x

    other = Preconditioned(Other(jnp.ones(())), VE(0.01, 20.0))
    with pytest.warns(UserWarning, match="unless it was trained before"):
        DiffusionModule(never, other, **settings)


@pytest.mark.slow
def test_guidance_of_strength_zero_is_the_model():
    net = nn.AdaptiveMixer2d(SHAPE, 2, 8, 8, 8, 1, num_classes=3, key=jax.random.key(0))
    keys = iter(jax.random.split(jax.random.key(1), 99))
    net = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(next(keys), a.shape), net)
    denoiser = Preconditioned(net, VE(0.01, 20.0))
    x, t, cond = jnp.ones(SHAPE), jnp.asarray(0.5), jnp.asarray(2)
    same = Guided(denoiser, 0.0)(x, t, cond)
    assert jnp.array_equal(same, denoiser(x, t, cond))
    assert not jnp.allclose(Guided(denoiser, 1.0)(x, t, cond), same)
