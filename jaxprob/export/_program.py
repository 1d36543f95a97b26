"""A compiled function in a file."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import PyTree

from .._checks import check_same_length
from .._io.atomic import replace_whole
from .._io.paths import local_path
from .._random.keys import check_key
from .._types import PRNGKey

PLATFORMS = ("cpu", "cuda", "tpu")


class Program:
    """A function of a key and rows, as StableHLO.

    `export_predictive` and `export_sampler` make it. Its weights are constants in it.
    JAX promises to read a file for six months after the release that wrote it.

    Reference: https://docs.jax.dev/en/latest/export/export.html

    **Arguments:**

    - `exported`: the function as `jax.export` has it.
    """

    def __init__(self, exported: export.Exported):
        self.exported = exported

    def __call__(self, *rows: PyTree, key: PRNGKey) -> PyTree:
        """Return the outputs for rows, compiled once for each number of rows.

        **Arguments:**

        - `rows`: the arguments of the function, with one length along the leading axes.
        - `key`: all randomness.
        """
        check_key(key)
        return self.exported.call(key, *rows)

    def save(self, path: str | Path) -> None:
        """Write the file that `jax.export.deserialize` reads, whole or not at all.

        **Raises:** `ModuleNotFoundError` where flatbuffers is missing.
        """
        _check_flatbuffers()
        content = bytes(self.exported.serialize())
        replace_whole(local_path("path", path), lambda at: at.write_bytes(content))

    @classmethod
    def load(cls, path: str | Path) -> "Program":
        """Return the program of a file.

        **Raises:** `ValueError` for a file that is not one of `save`;
        `ModuleNotFoundError` where flatbuffers is missing.
        """
        _check_flatbuffers()
        content = local_path("path", path).read_bytes()
        try:
            return cls(export.deserialize(bytearray(content)))
        except Exception as error:
            # The reader of the format raises whatever it stumbles over.
            raise ValueError(
                f"{path} is no exported program that jax {jax.__version__} can read: "
                "write it with Program.save, with a jax of the last six months"
            ) from error


def exported(
    function: Callable[..., PyTree],
    example: Sequence[PyTree],
    platforms: Sequence[str],
) -> Program:
    """Return the program of a function of `(key, *rows)`, for any number of rows.

    **Arguments:**

    - `function`: pure; it maps over the leading axes itself.
    - `example`: rows whose leading axes stand for any number.
    - `platforms`: what the program is compiled for.
    """
    wrong = sorted(set(platforms) - set(PLATFORMS))
    if wrong or not platforms:
        raise ValueError(
            f"platforms={tuple(platforms)}: give some of {', '.join(PLATFORMS)}"
        )
    (number,) = export.symbolic_shape("rows", constraints=["rows >= 1"])

    def symbolic(leaf: Any) -> jax.ShapeDtypeStruct:
        leaf = jnp.asarray(leaf)
        return jax.ShapeDtypeStruct((number, *leaf.shape[1:]), leaf.dtype)

    leaves = jax.tree.leaves(example)
    check_same_length(**{f"leaf {i}": leaf for i, leaf in enumerate(leaves)})
    key = jax.eval_shape(lambda: jax.random.key(0))
    program = export.export(jax.jit(function), platforms=tuple(platforms))
    try:
        return Program(program(key, *jax.tree.map(symbolic, tuple(example))))
    except NotImplementedError as error:
        if "host_callbacks" not in str(error):
            raise
        raise ValueError(
            "the program calls Python, which no file holds. diffrax and Equinox do so "
            "to raise errors (ODESampler, SDESampler, models with eqx.error_if): set "
            "the environment variable EQX_ON_ERROR=nan before Python starts, which "
            "gives NaN in place of an error; or sample with ExpAB"
        ) from error


def _check_flatbuffers() -> None:
    if importlib.util.find_spec("flatbuffers") is None:
        raise ModuleNotFoundError(
            "files of programs are written and read by flatbuffers: "
            'pip install "jaxprob[export]"',
            name="flatbuffers",
        )
