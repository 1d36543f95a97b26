"""Any tree in one file that describes itself."""

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._checks import path_name
from .._version import __version__
from . import tensor_file
from .arrays import describe_array, restore_array
from .describe import Spec, describe, on_host
from .differences import PYTHON, Comparison, Inside
from .errors import DamagedFileError, FileMismatchError
from .paths import local_path
from .rebuild import MISSING, Rebuilder, needs, needs_message

FORMAT = "1"


def save(path: str | Path, tree: PyTree) -> None:
    """Write a module, with its structure and settings, to one safetensors file.

    ```python
    jaxprob.save("denoiser.safetensors", denoiser)
    denoiser = jaxprob.load("denoiser.safetensors")
    ```

    The file holds every array by the path of its leaf, and as JSON the classes, all
    their fields (static ones too), functions by name, the versions that wrote it, and
    a SHA-256 of it all. Nothing is pickled, and any program can read the arrays.

    A denoiser, a network, a posterior, a learner's state, a fitted estimator, a scaler,
    or a tuple or dict of several: `save(path, {"denoiser": d, "scaler": s})`.

    **Arguments:**

    - `path`: the file, replaced whole or not at all.
    - `tree`: any pytree. Your functions and classes are described by a
        fingerprint of their code, and have to be given to `load`.

    **Raises:** `TypeError` naming a leaf that has no fixed value; `OSError` as the file
    system gives it.
    """
    write_described(path, *describe(tree))


def load(
    path: str | Path, *, template: PyTree = None, using: Iterable[Any] = ()
) -> Any:
    """Return what `save` wrote, with the class and the settings it had.

    Without `template`, all classes and functions have to be from jaxprob, `equinox.nn`,
    `numpyro.distributions`, optax's states, `jax.nn` or `jax.numpy`; or in `using`.

    **Arguments:**

    - `path`: the file.
    - `template`: a tree built with the settings of the saved one; its weights do not
        matter. Each setting is compared, and what the file cannot hold is taken from
        here. `eqx.filter_eval_shape` makes one without memory.
    - `using`: your classes and functions that the tree is made of.

    **Raises:** `jaxprob.FileMismatchError` (a `ValueError`) that names each setting,
    shape or dtype that differs from `template`, or the code that is missing;
    `jaxprob.DamagedFileError` (a `ValueError`) for a file that is cut short, has
    changed, or is of another kind; `FileNotFoundError`.
    """
    file = read_described(path)
    if template is None:
        return file.rebuild(using=using)
    spec, _ = describe(template)
    file.compare(file.spec, spec)
    return file.rebuild(using=using, template=template)


def load_weights(path: str | Path, template: PyTree) -> Any:
    """Return `template` with the arrays of a safetensors file, by paths of leaves.

    For files of other programs, which say nothing of settings: names, shapes and dtypes
    are compared. For a file of `save` prefer `load`, which compares the settings too;
    here what differs is a warning.

    **Arguments:**

    - `path`: the file.
    - `template`: a model whose leaves have the names of the file's arrays.

    **Raises:** `jaxprob.FileMismatchError` naming each array that is missing, not
    expected, or of another shape or dtype; `jaxprob.DamagedFileError`.
    """
    path = local_path("path", path)
    arrays, metadata = tensor_file.read(path)
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(template, eqx.is_array))
    expected = {path_name(place): leaf for place, leaf in leaves}
    lines = [f"{name}: the file lacks it" for name in expected if name not in arrays]
    lines += [f"{name}: not in the model" for name in arrays if name not in expected]
    found = {}
    for name in expected.keys() & arrays.keys():
        description = describe_array(expected[name])
        try:
            found[name] = restore_array(name, arrays[name], description)
        except ValueError as error:
            lines.append(f"{name}: the file has {arrays[name].dtype}"
                         f"{list(arrays[name].shape)}: {error}")  # fmt: skip
    if lines:
        raise _mismatch(path, sorted(lines), "")
    if "jaxprob.format" in metadata:
        file = DescribedFile(path, arrays, metadata)
        comparison = Comparison(python=file.versions.get("python", ""))
        comparison.compare(file.spec, describe(template)[0])
        if comparison.differences:
            warnings.warn(
                f"{path} was written from a model with other settings: "
                f"{'; '.join(comparison.differences[:10])}. load(path, template=model) "
                "rejects it",
                stacklevel=2,
            )
    return jax.tree_util.tree_map_with_path(
        lambda place, leaf: found.get(path_name(place), leaf), template
    )


def is_described(path: str | Path) -> bool:
    """Return whether a file says that it was written by `save`.

    **Raises:** `jaxprob.DamagedFileError` for a file that is no safetensors file.
    """
    metadata = tensor_file.read_metadata(local_path("path", path))
    return any(name.startswith("jaxprob.") for name in metadata)


class DescribedFile:
    """A file that was read: its arrays, its description, and who wrote it."""

    def __init__(self, path: Path, arrays: dict[str, Any], metadata: dict[str, str]):
        if "jaxprob.format" not in metadata:
            raise DamagedFileError(
                f"{path} holds no description: jaxprob.save writes one. For arrays of "
                "another program use jaxprob.load_weights(path, model)"
            )
        if metadata["jaxprob.format"] != FORMAT:
            raise DamagedFileError(
                f"{path} has format {metadata['jaxprob.format']}, and this jaxprob "
                f"({__version__}) reads {FORMAT}: install a newer jaxprob"
            )
        self.path = path
        self.arrays = arrays
        try:
            self.versions: dict[str, str] = json.loads(metadata["jaxprob.versions"])
            self.spec: Spec = json.loads(metadata["jaxprob.tree"])
            self.versions.get("python")
        except (KeyError, ValueError, RecursionError, AttributeError) as error:
            raise DamagedFileError(f"{path} has no readable description") from error

    def compare(self, file: Spec, tree: Spec, *, inside_posterior: Inside = None):
        """Compare a part of the description with that of a tree.

        **Raises:** `FileMismatchError` that names each difference.
        """
        comparison = Comparison(
            python=self.versions.get("python", ""), inside_posterior=inside_posterior
        )
        comparison.compare(file, tree)
        if comparison.differences:
            raise _mismatch(self.path, comparison.differences, self._by_others())
        warn_of_code(self.path, comparison, stacklevel=4)

    def rebuild(
        self,
        *,
        using: Iterable[Any] = (),
        template: Any = MISSING,
        field_template: Any = None,
    ) -> Any:
        """The tree of the description."""
        if template is MISSING and field_template is None:
            missing = needs(self.spec, using)
            if missing:
                raise FileMismatchError(
                    f"{self.path}: {needs_message(missing)}", tuple(missing)
                )
        build = Rebuilder(self.arrays, using, field_template)
        tree = build(self.spec, template)
        unused = sorted(self.arrays.keys() - build.used)
        if unused:
            raise DamagedFileError(
                f"{self.path} holds arrays that its description does not name: "
                f"{unused[:5]}"
            )
        return tree

    def _by_others(self):
        here = versions()
        other = [f"{k} {v}" for k, v in self.versions.items() if here.get(k) != v]
        return f" (The file was written by {', '.join(other)}.)" if other else ""


def write_described(path: str | Path, spec: Spec, arrays: dict[str, Any]) -> None:
    """Write a description and its arrays."""
    tensor_file.write(local_path("path", path), on_host(arrays), metadata_of(spec))


def metadata_of(spec: Spec) -> dict[str, str]:
    """Return the texts beside the arrays of a file, from which it can be read."""
    return {
        "jaxprob.format": FORMAT,
        "jaxprob.versions": json.dumps(versions()),
        "jaxprob.tree": json.dumps(spec),
    }


def read_described(path: str | Path) -> DescribedFile:
    """Read a file that `write_described` wrote, verified.

    **Raises:** `DamagedFileError`, `FileNotFoundError`.
    """
    path = local_path("path", path)
    return DescribedFile(path, *tensor_file.read(path))


def versions() -> dict[str, str]:
    """Versions of what a file depends on."""
    return {
        "jaxprob": __version__,
        "jax": jax.__version__,
        "equinox": eqx.__version__,
        "python": PYTHON,
    }


def warn_of_code(path: Any, comparison: Comparison, stacklevel: int) -> None:
    """Warn of methods of the user's classes that are not what they were."""
    if comparison.changed_code:
        warnings.warn(
            f"{path} was written with other code in "
            f"{', '.join(comparison.changed_code[:10])}, or by another version of "
            "Python: check that the model still computes what it did",
            stacklevel=stacklevel,
        )


def _mismatch(path, lines, by):
    shown = "; ".join(lines[:10]) + ("; ..." if len(lines) > 10 else "")
    return FileMismatchError(
        f"{path} was written from another model: {shown}. Build the model with the "
        f"settings of the saved one.{by}",
        tuple(lines),
    )
