"""Low-rank adapters: the model as it was, posteriors over the changes alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn, tree

NUM = 12


def log_joint():
    return bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.IsotropicNormal(1.0), NUM)


def data(outputs=1):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM, 4))
    return x, rng.normal(size=(NUM, outputs))


class Attentive(eqx.Module):
    """Rows of numbers that see each other, and one answer."""

    attention: eqx.nn.MultiheadAttention
    head: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=keys[0])
        self.head = eqx.nn.Linear(4, 1, key=keys[1])

    def __call__(self, x):
        tokens = jnp.stack([x, x[::-1]])
        return self.head(jnp.mean(self.attention(tokens, tokens, tokens), axis=0))


def moved(model, key):
    """The adapted model with changes that are not zero."""
    flags = tree.select(model, "*.update.up")
    keys = iter(jax.random.split(key, 20))
    return jax.tree.map(
        lambda a, flag: a + jax.random.normal(next(keys), a.shape) if flag else a,
        model,
        flags,
    )


@pytest.mark.parametrize("make", [lambda k: eqx.nn.MLP(4, 1, 8, 2, key=k), Attentive])
def test_an_adapted_model_computes_what_it_did_and_can_be_merged(getkey, make):
    model, x = make(getkey()), jnp.asarray(data()[0][0], jnp.float32)
    adapted = bnn.lora(model, rank=2, key=getkey())
    assert jnp.array_equal(model(x), adapted(x))
    changed = moved(adapted, getkey())
    assert abs(changed(x) - model(x)).max() > 0.01
    merged = bnn.merge_lora(changed)
    assert jax.tree.structure(merged) == jax.tree.structure(model)
    assert jnp.allclose(merged(x), changed(x), atol=1e-5)


def test_layers_are_chosen_and_alpha_scales_the_change(getkey):
    model = eqx.nn.MLP(4, 1, 8, 2, key=getkey())
    adapted = bnn.lora(model, "layers.1", rank=2, alpha=8.0, key=getkey())
    kinds = [type(layer) for layer in adapted.layers]
    assert kinds == [eqx.nn.Linear, bnn.LowRankAdapter, eqx.nn.Linear]
    layer = moved(adapted, getkey()).layers[1]
    change = layer.weight - model.layers[1].weight
    assert jnp.allclose(change, 4.0 * layer.update.up @ layer.update.down, atol=1e-6)
    assert (layer.in_features, layer.out_features) == (8, 8)
    again = bnn.lora(adapted, rank=1, key=getkey())
    assert type(again.layers[1].layer) is eqx.nn.Linear  # adapted once
    assert type(again.layers[0]) is bnn.LowRankAdapter


def test_laplace_over_one_side_is_the_exact_linear_regression(x64, getkey):
    """With D fixed the model is linear in U: features D x, prior and noise known."""
    x, y = data(2)
    layer = eqx.nn.Linear(4, 2, key=getkey())
    adapted = bnn.lora(layer, rank=1, alpha=3.0, key=getkey())
    features = 3.0 * x @ np.asarray(adapted.update.down).T
    residual = y - np.asarray(jax.vmap(layer)(x))
    precision = np.eye(1) + features.T @ features / 0.5**2
    mode = np.linalg.solve(precision, features.T @ residual / 0.5**2).T
    adapted = eqx.tree_at(lambda m: m.update.up, adapted, jnp.asarray(mode))
    method = bnn.MAP(log_joint(), optax.sgd(0.1), random="update.up", point=False)
    method = bnn.Laplace(method, structure="full")
    posterior = method.posterior(method.init(adapted), [(x, y)])
    mean, covariance = posterior.output_distribution(jnp.asarray(x[:1]))
    # The two outputs have the same features, and independent rows of U.
    variance = features[0] @ np.linalg.solve(precision, features[0])
    assert np.allclose(covariance[0], variance * np.eye(2), rtol=1e-8)
    assert np.allclose(mean[0], jax.vmap(adapted)(x)[0], rtol=1e-10)


def methods():
    def descent(kind, **kwargs):
        kwargs |= {"random": bnn.LowRankUpdate, "point": False}
        return kind(log_joint(), optax.adam(1e-2), **kwargs)

    return {
        "map": descent(bnn.MAP),
        "kronecker": bnn.Laplace(descent(bnn.MAP), structure="kronecker"),
        "swag": bnn.SWAG(descent(bnn.MAP), num_warmup=2, thin=1),
        "mean field": descent(bnn.MeanFieldVI),
        "ensemble": bnn.DeepEnsemble(descent(bnn.AnchoredMAP), 2),
        "sgld": bnn.SGLD(
            log_joint(),
            1e-4,
            num_warmup=2,
            thin=1,
            num_draws=2,
            random=bnn.LowRankUpdate,
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", methods())
def test_every_family_moves_the_changes_alone(getkey, name):
    method = methods()[name]
    batch = tuple(np.asarray(a, np.float32) for a in data())
    model = bnn.lora(eqx.nn.MLP(4, 1, 8, 1, key=getkey()), rank=1, key=getkey())
    state, _ = jaxprob.fit(
        method, model, batch, key=getkey(), num_steps=6, batch_size=NUM, progress=False
    )
    posterior = method.posterior(state, [batch], key=getkey())
    drawn = posterior.sample(key=getkey())
    chosen = tree.select(model, bnn.LowRankUpdate)
    ours, rest = eqx.partition(drawn, chosen)
    before, frozen = eqx.partition(model, chosen)
    assert eqx.tree_equal(rest, frozen)
    for after, start in zip(*map(jax.tree.leaves, (ours, before)), strict=True):
        assert jnp.any(after != start)


def test_what_cannot_be_adapted_is_an_error(getkey):
    model = eqx.nn.MLP(4, 1, 8, 1, key=getkey())
    with pytest.raises(ValueError, match="rank=0"):
        bnn.lora(model, rank=0, key=getkey())
    with pytest.raises(ValueError, match=r"alpha=0\.0: give a positive"):
        bnn.lora(model, rank=1, alpha=0.0, key=getkey())
    with pytest.raises(ValueError, match=r"rank=8 is no smaller .* shape \(8, 4\)"):
        bnn.lora(model, rank=8, key=getkey())
    with pytest.raises(ValueError, match=r"chooses the weight of no eqx\.nn\.Linear"):
        bnn.lora(model, "layers.*.bias", rank=1, key=getkey())
    with pytest.raises(ValueError, match="means no leaf"):
        bnn.lora(model, "blocks", rank=1, key=getkey())
    with pytest.raises(ValueError, match="to a scalar"):
        bnn.lora(eqx.nn.MLP(4, "scalar", 8, 1, key=getkey()), rank=1, key=getkey())
