"""A small attention model of text, character by character.

    python examples/10_language_model.py

It reads the docstrings of Python's own library: there is nothing to download. Prints
bits for each character of held-out text beside those of counts of n characters.
"""

import ast
import pathlib
import sysconfig

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytorch_lightning as pl

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

LENGTH = 64
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))


def docstrings(pattern="*.py"):
    """All docstrings of the library's modules, as numbers of characters."""
    parts = []
    for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob(pattern)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                parts.append(ast.get_docstring(node) or "")
    text = "\n\n".join(filter(None, parts))
    return np.array([ALPHABET.index(c) for c in text if c in ALPHABET], np.int32)


def ngram_bits(train, test, order):
    """Bits for each character by counts of it and those before it, `order` in all."""
    size = len(ALPHABET)
    place = size ** np.arange(order)[::-1]
    windows = np.lib.stride_tricks.sliding_window_view
    seen, asked = (windows(part, order) @ place for part in (train, test))
    counts = np.bincount(seen, minlength=size**order).reshape(-1, size) + 0.01
    probs = counts / counts.sum(axis=1, keepdims=True)
    return -np.mean(np.log2(probs.ravel()[asked]))


class Block(eqx.Module):
    """Attention to what came before, then a perceptron; each adds to its input."""

    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __init__(self, width, *, key):
        first, second = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(4, width, key=first)
        self.mlp = eqx.nn.MLP(width, width, 4 * width, 1, jax.nn.gelu, key=second)

    def __call__(self, x):
        norm = jax.vmap(eqx.nn.LayerNorm(x.shape[1], use_weight=False, use_bias=False))
        past = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(norm(x), norm(x), norm(x), mask=past)
        return x + jax.vmap(self.mlp)(norm(x))


class LanguageModel(eqx.Module):
    """Logits of the next character, at each character of a text."""

    characters: jax.Array
    places: jax.Array
    blocks: list[Block]
    out: eqx.nn.Linear

    def __init__(self, width=96, depth=2, *, key):
        first, second, third, *keys = jax.random.split(key, 3 + depth)
        self.characters = jax.random.normal(first, (len(ALPHABET), width))
        self.places = jax.random.normal(second, (LENGTH, width))
        self.blocks = [Block(width, key=key) for key in keys]
        self.out = eqx.nn.Linear(width, len(ALPHABET), key=third)

    def __call__(self, text):
        x = self.characters[text] + self.places[: len(text)]
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.out)(x)


@jaxprob.mean_loss
def nats(model, text, *, key):
    loss = optax.softmax_cross_entropy_with_integer_labels
    return jnp.mean(loss(model(text[:-1]), text[1:]))


def main(num_steps: int = 3000, pattern: str = "*.py") -> dict[str, float]:
    text = docstrings(pattern)
    cut = len(text) // 10 * 9
    rows = np.lib.stride_tricks.sliding_window_view(text, LENGTH + 1)
    train, test = rows[: cut - LENGTH : 16], rows[cut :: LENGTH + 1]
    data = ArrayDataModule(train, test=test, batch_size=32)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-3, 100, num_steps + 100)
    learner = jaxprob.GradientDescent(nats, optax.adamw(schedule, weight_decay=0.01))
    module = LearnerModule(learner, LanguageModel(key=jax.random.key(0)))
    options = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=num_steps, **options)
    trainer.fit(module, data)
    (found,) = trainer.test(module, data, verbose=False)
    figures = {"attention": found["test_loss"] / np.log(2)}
    for n in (1, 2, 3):
        figures[f"{n}-gram"] = float(ngram_bits(text[:cut], text[cut:], n))
    for name, value in figures.items():
        print(f"{name}: {value:.3f} bits for each character")
    return figures


if __name__ == "__main__":
    main()
