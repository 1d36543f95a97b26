"""Probabilistic deep learning on Equinox.

The core trains anything. A **learner** is four pure functions,

    state = learner.init(model, key=key)
    state, info = learner.update(state, batch, key=key)
    info = learner.evaluate(state, batch, key=key)
    model = learner.model(state)

and `fit` (a plain JAX loop) and `jaxprob.lightning` (PyTorch Lightning) both run it.
`GradientDescent` is the plain learner; every inference method in `jaxprob.bnn` is
another; `jaxprob.diffusion` makes losses for the first.

- `jaxprob.bnn`: prior + likelihood -> inference -> posterior -> predictive.
- `jaxprob.diffusion`: schedule -> denoiser -> loss -> sampler, log-likelihood.
- `jaxprob.metrics`: arrays in, scalars out: is the uncertainty to be trusted?
- `jaxprob.recalibrate`: temperature, variance scaling, conformal intervals and sets.
- `jaxprob.tree`: choose, freeze and swap parts of any model by their path.
- `jaxprob.datasets`, `jaxprob.plot`, `jaxprob.report`, `jaxprob.export`,
  `jaxprob.testing`, `jaxprob.lightning` are imported by name.

The names are those of `_names.py`, imported when the first of them is used: the command
`jaxprob --help` does not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import (
        bnn as bnn,
        diffusion as diffusion,
        metrics as metrics,
        recalibrate as recalibrate,
        tree as tree,
    )
    from ._names import *  # noqa: F403

_PACKAGES = ("bnn", "diffusion", "metrics", "recalibrate", "tree")


if not TYPE_CHECKING:  # else no name would be unknown to a type checker

    def __getattr__(name: str):
        if name == "__all__":  # of `from jaxprob import *` and `help(jaxprob)`
            return [*_public(), *_PACKAGES]
        if name in _PACKAGES:
            return importlib.import_module(f".{name}", __name__)
        # Tools ask for many names of this kind, which no module here has.
        if not (name.startswith("__") and name.endswith("__")):
            globals().update(_public())
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    names = {*globals(), *_PACKAGES, *_public()}
    return sorted(names - {"TYPE_CHECKING", "importlib"})


def _public() -> dict:
    names = importlib.import_module("._names", __name__)
    return {name: vars(names)[name] for name in names.__all__}
