"""Networks: the Mixer is the example's function, embeddings, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob._random.keys import as_seed
from jaxprob.diffusion import kidger_mixer, nn

SHAPE = (3, 8, 12)


def mixer(key, **changes):
    settings = {
        "patch_size": 4,
        "hidden_size": 5,
        "mix_patch_size": 16,
        "mix_hidden_size": 12,
        "num_blocks": 2,
        "t_max": 10.0,
    }
    return nn.Mixer2d(SHAPE, **(settings | changes), key=key)


def shuffled(net, key):
    """Random numbers in every leaf: norms and biases must matter in the comparison."""
    params, rest = eqx.partition(net, eqx.is_inexact_array)
    rng = np.random.default_rng(as_seed(key))
    # In NumPy, for each shape would be a program.
    params = jax.tree.map(
        lambda p: jnp.asarray(np.asarray(p) + 0.3 * rng.normal(size=p.shape), p.dtype),
        params,
    )
    return eqx.combine(params, rest)


def layer_norm(norm, y):
    """The norm of (hidden, patches), whose parameters are stored transposed."""
    weight, bias = norm
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
    return y * np.asarray(weight).T + np.asarray(bias).T


def two_layers(mlp, v):
    hidden = np.asarray(mlp.up).T @ v + np.asarray(mlp.up_bias)
    return np.asarray(mlp.down) @ np.maximum(hidden, 0.0) + np.asarray(mlp.down_bias)


def by_loops(net, t, image):
    """The example's function, one output number at a time, from its description.

    Time over T as a last channel; a convolution with stride as wide as its kernel;
    blocks over (hidden, patches); a norm; the convolution's transpose.
    """
    p = net.patch_size
    channels, height, width = image.shape
    y = np.concatenate([image, np.full((1, height, width), t / net.t_max)])
    rows, columns = height // p, width // p
    kernel = np.asarray(net.patch_in.weight).reshape(-1, channels + 1, p, p)
    out = np.zeros((len(kernel), rows, columns))
    for o, r, c in np.ndindex(*out.shape):
        patch = y[:, r * p : (r + 1) * p, c * p : (c + 1) * p]
        out[o, r, c] = (kernel[o] * patch).sum() + np.asarray(net.patch_in.bias)[o]
    y = out.reshape(len(out), -1)
    for block in net.blocks:
        normed = layer_norm(block.norm1, y)
        y = y + np.stack([two_layers(block.patch_mixer, row) for row in normed])
        normed = layer_norm(block.norm2, y).T
        y = y.T
        y = y + np.stack([two_layers(block.hidden_mixer, row) for row in normed])
        y = y.T
    y = layer_norm((net.norm.weight, net.norm.bias), y).reshape(-1, rows, columns)
    kernel = np.asarray(net.patch_out).reshape(len(y), channels, p, p)
    image = np.zeros(image.shape)
    for o, r, c in np.ndindex(*y.shape):
        place = (slice(None), slice(r * p, (r + 1) * p), slice(c * p, (c + 1) * p))
        image[place] += y[o, r, c] * kernel[o]
    return image + np.asarray(net.bias_out)[:, None, None]


@pytest.mark.slow
def test_mixer_is_the_examples_function(x64, getkey):
    net = shuffled(mixer(getkey()), getkey())
    image, t = jax.random.normal(getkey(), SHAPE), jnp.asarray(3.7)
    expected = by_loops(net, 3.7, np.asarray(image))
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(net(image, t), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_mixer_is_made_of_equinox_layers_it_stands_for(x64, getkey):
    """The strided convolutions, by Equinox's own."""
    net = shuffled(mixer(getkey(), num_blocks=0), getkey())
    channels, p, hidden = SHAPE[0], net.patch_size, 5
    key = getkey()
    conv_in = eqx.nn.Conv2d(channels + 1, hidden, p, stride=p, key=key)
    conv_out = eqx.nn.ConvTranspose2d(hidden, channels, p, stride=p, key=key)
    conv_in = eqx.tree_at(
        lambda c: (c.weight, c.bias),
        conv_in,
        (
            net.patch_in.weight.reshape(hidden, channels + 1, p, p),
            net.patch_in.bias[:, None, None],
        ),
    )
    # A transposed convolution is a convolution of the dilated image with the kernel
    # mirrored.
    kernel = net.patch_out.reshape(hidden, channels, p, p).transpose(1, 0, 2, 3)
    conv_out = eqx.tree_at(
        lambda c: (c.weight, c.bias),
        conv_out,
        (kernel[..., ::-1, ::-1], net.bias_out[:, None, None]),
    )
    image = jax.random.normal(getkey(), SHAPE)
    y = conv_in(jnp.concatenate([image, jnp.full((1, *SHAPE[1:]), 0.37)]))
    y = conv_out(net.norm(y.reshape(hidden, -1).T).T.reshape(y.shape))
    assert jnp.allclose(net(image, jnp.asarray(3.7)), y, rtol=1e-10)


@pytest.mark.slow
def test_the_examples_mixer_has_as_many_parameters():
    """526,981 for the settings of the example on MNIST."""
    import jaxprob

    denoiser = kidger_mixer((1, 28, 28), key=jax.random.key(0))
    assert jaxprob.tree.count(denoiser) == 526_981


@pytest.mark.slow
@pytest.mark.parametrize("told", ["time", "noise"])
def test_the_examples_mixer_is_told_the_time_or_the_noise(told, getkey):
    """As a share of T = 10, or as a quarter of the logarithm of the noise level."""
    key, x, t = getkey(), jax.random.normal(getkey(), (1, 8, 8)), jnp.asarray(0.3)
    sizes = {
        "patch_size": 4,
        "hidden_size": 8,
        "mix_patch_size": 8,
        "mix_hidden_size": 8,
        "num_blocks": 1,
    }
    denoiser = kidger_mixer(
        (1, 8, 8), **sizes, predict="x0", condition_on=told, key=key
    )
    level = jnp.sqrt(jnp.expm1(t))
    c = t / 10.0 if told == "time" else jnp.log(level) / 4.0
    expected = nn.Mixer2d((1, 8, 8), **sizes, t_max=1.0, key=key)(x, c)
    assert jnp.allclose(denoiser(x, t), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 30), (1, 30, 28)])
def test_patches_that_do_not_tile_are_refused(shape, getkey):
    with pytest.raises(ValueError, match="does not divide the image's"):
        nn.Mixer2d(shape, 4, 8, 8, 8, 1, key=getkey())


@pytest.mark.slow
def test_other_images_are_refused(getkey):
    with pytest.raises(ValueError, match=r"images of shape \(3, 8, 12\)"):
        mixer(getkey())(jnp.zeros((3, 12, 8)), jnp.asarray(1.0))


@pytest.mark.slow
def test_sinusoids_tell_noise_levels_apart(getkey):
    embed = nn.Sinusoids(16)
    c = jnp.linspace(-2.0, 2.0, 101)
    vectors = jax.vmap(embed)(c)
    gram = vectors @ vectors.T / 8.0
    assert jnp.allclose(jnp.diag(gram), 1.0, atol=1e-5)
    off = gram - 2.0 * jnp.eye(101)
    assert jnp.max(off) < 0.999
    with pytest.raises(ValueError, match="even number"):
        nn.Sinusoids(7)


@pytest.mark.slow
def test_embedding_hears_level_class_and_vector(getkey):
    c = jnp.asarray(0.3)
    classes = nn.Embedding(16, num_classes=4, key=getkey())
    vectors = [classes(c, jnp.asarray(k)) for k in range(4)] + [classes(c)]
    vectors.append(classes(jnp.asarray(0.4)))
    for i in range(len(vectors)):
        for j in range(i):
            assert jnp.max(jnp.abs(vectors[i] - vectors[j])) > 1e-3
    vector = nn.Embedding(16, cond_dim=3, key=getkey())
    a, b = vector(c, jnp.ones(3)), vector(c, jnp.zeros(3))
    assert jnp.max(jnp.abs(a - b)) > 1e-3


def test_unknown_conditions_are_refused(getkey):
    c = jnp.asarray(0.3)
    classes = nn.Embedding(16, num_classes=4, key=getkey())
    # Inside a batch nothing can be raised, but it must not pass for another class.
    assert jnp.isnan(classes(c, jnp.asarray(4))).all()
    with pytest.raises(ValueError, match="one class, an integer"):
        classes(c, jnp.ones(2, jnp.int32))
    with pytest.raises(ValueError, match="built without one"):
        nn.Embedding(16, key=getkey())(c, jnp.asarray(1))
    with pytest.raises(ValueError, match=r"\(3,\) is needed"):
        nn.Embedding(16, cond_dim=3, key=getkey())(c, jnp.ones(2))
    with pytest.raises(ValueError, match="not both"):
        nn.Embedding(16, cond_dim=3, num_classes=2, key=getkey())


NETWORKS = {
    "mlp": (
        lambda key, **kw: nn.ResidualMLP(3, width=16, depth=2, key=key, **kw),
        (3,),
    ),
    "mixer": (mixer, SHAPE),
    "adaptive_mixer": (
        lambda key, **kw: nn.AdaptiveMixer2d(SHAPE, 4, 8, 16, 12, 2, key=key, **kw),
        SHAPE,
    ),
    "unet": (
        lambda key, **kw: nn.UNet(
            SHAPE, widths=(4, 8), attention_at=(4,), num_heads=2, key=key, **kw
        ),
        SHAPE,
    ),
    "dit": (
        lambda key, **kw: nn.DiT(
            SHAPE, 4, width=8, depth=2, num_heads=2, key=key, **kw
        ),
        SHAPE,
    ),
}
NETWORKS |= {
    "dit_volume": (
        lambda key, **kw: nn.DiT(
            (1, 3, 4, 5), (1, 2, 3), width=8, depth=1, num_heads=2, key=key, **kw
        ),
        (1, 3, 4, 5),
    ),
}
CONDITIONAL = [name for name in NETWORKS if name != "mixer"]


def key_of(seed):
    """Of JAX's Philox: a network has draws of thirty shapes, and Philox compiles each
    five times as fast as the default generator."""
    return jax.random.key(seed, impl="philox4x32")


@pytest.fixture(scope="module")
def networks():
    """Each with random numbers in every leaf, and four inputs."""
    built = {}

    def get(name):
        if name not in built:
            make, shape = NETWORKS[name]
            net = shuffled(make(key_of(0)), key_of(1))
            x = jax.random.normal(key_of(2), (4, *shape))
            built[name] = net, x, jnp.linspace(-1.0, 1.0, 4)
        return built[name]

    return get


@eqx.filter_jit
def gradient_and_output(nets, x, c):
    def loss(net):
        out = jax.vmap(net)(x, c)
        return jnp.mean(jnp.sin(out)), out

    return [eqx.filter_grad(loss, has_aux=True)(net) for net in nets]


@pytest.fixture(scope="module")
def passes(networks):
    """Gradient and output, of each network and of itself in few digits."""
    made = {}

    def get(name):
        if name not in made:
            net, x, c = networks(name)
            made[name] = gradient_and_output((net, nn.LowPrecision(net)), x, c)
        return made[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_a_function_of_one_example(name, networks, passes):
    net, x, c = networks(name)
    (_, batched), one = passes(name)[0], eqx.filter_jit(net)
    assert batched.shape == x.shape
    for i in range(4):
        assert jnp.allclose(batched[i], one(x[i], c[i]), rtol=2e-5, atol=2e-5)
    # It hears the noise level.
    assert jnp.max(jnp.abs(one(x[0], c[0]) - one(x[0], c[1]))) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_leaf_has_a_gradient(name, passes):
    gradient, _ = passes(name)[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.any(np.asarray(leaf)), jax.tree_util.keystr(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize("kind", ["class", "vector"])
def test_the_condition_matters(name, kind):
    """Two conditions and none give three outputs, also when each row has its own."""
    make, shape = NETWORKS[name]
    of_class = kind == "class"
    settings = {"num_classes": 3} if of_class else {"cond_dim": 2}
    net = shuffled(make(key_of(0), **settings), key_of(1))
    values = jnp.array([0, 2, 1]) if of_class else jnp.eye(3, 2)
    cond = nn.Condition(values, jnp.array([True, True, False]))
    x, c = jax.random.normal(key_of(2), shape), jnp.asarray(0.3)
    out = eqx.filter_jit(eqx.filter_vmap(net, in_axes=(None, None, 0)))(x, c, cond)
    without = eqx.filter_jit(net)(x, c)
    assert jnp.allclose(out[2], without, atol=2e-5)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert jnp.max(jnp.abs(out[a] - out[b])) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_new_network_says_nothing(name):
    """So that with `predict="edm"` a new denoiser is the best linear one."""
    make, shape = NETWORKS[name]
    x = jax.random.normal(key_of(2), shape)
    assert jnp.all(eqx.filter_jit(make(key_of(0)))(x, jnp.asarray(0.3)) == 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_in_few_digits(name, passes):
    """Near the network itself, in its own dtype, as are the gradients."""
    (gradient, exact), (low_gradient, out) = passes(name)
    assert out.dtype == jnp.float32
    error = jnp.linalg.norm(out - exact) / jnp.linalg.norm(exact)
    assert 1e-4 < error < 0.05
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(low_gradient))
    a, b = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(g)])
        for g in (gradient, low_gradient)
    )
    assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a)


def test_few_digits_must_be_floating_point():
    with pytest.raises(TypeError, match="floating-point type"):
        nn.LowPrecision(jnp.tanh, jnp.int8)


REFUSED = {
    "patches": (lambda key: nn.DiT((1, 28, 28), (5, 2, 2), key=key), "of the 2 axes"),
    "axes": (lambda key: nn.UNet((28,), key=key), r"\(2, 64\) for signals"),
    "dropout": (lambda key: nn.UNet((1, 8), dropout=1.0, key=key), "is a probability"),
    "in_channels": (
        lambda key: nn.UNet((3, 8), in_channels=2, key=key),
        "examples have 3 channels",
    ),
    "heads": (lambda key: nn.DiT((1, 8, 8), 4, width=9, key=key), r"\[1, 3, 9\] do"),
    "no_levels": (lambda key: nn.UNet((1, 8, 8), widths=(), key=key), "one level"),
    "attention": (
        lambda key: nn.UNet((1, 8, 8), widths=(4, 4), attention_at=(7,), key=key),
        r"levels have \[8, 4\]",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_do_not_fit_are_refused(name, getkey):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make(getkey())


@pytest.mark.parametrize("name", ["adaptive_mixer", "unet", "dit"])
def test_images_of_another_shape_are_refused(name, networks):
    net, _, _ = networks(name)
    with pytest.raises(ValueError, match=r"images of shape \(3, 8, 12\); got"):
        net(jnp.zeros((3, 12, 8)), jnp.asarray(1.0))


@pytest.mark.slow
def test_attention_is_its_formula(x64, getkey):
    attention = nn.SelfAttention(6, 2, key=getkey())
    attention = jax.tree.map(lambda leaf: leaf.astype(float), attention)
    rows = jax.random.normal(getkey(), (5, 6))
    q, k, v = np.split(np.asarray(jax.vmap(attention.qkv)(rows)), 3, axis=1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        scores = q[:, part] @ k[:, part].T / 3**0.5
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        heads.append(weights @ v[:, part])
    expected = jax.vmap(attention.out)(jnp.asarray(np.concatenate(heads, axis=1)))
    assert jnp.allclose(attention(rows), expected, rtol=1e-10)
