"""Report of a diffusion model: its samples, and what it makes of real rows."""

import warnings
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, PyTree
from matplotlib.figure import Figure

from .. import tree
from .._random.keys import check_key
from .._types import PRNGKey
from ..datasets import Standardizer
from ..diffusion import (
    AbstractDenoiser,
    AbstractSampler,
    ExactTrace,
    ExpAB,
    Hutchinson,
    bits_per_dim,
    level_errors,
    log_prob,
    map_examples,
    sample,
)
from ..plot import sample_grid
from ._neighbours import copies, nearest
from ._parts import Picture, Section, Table, Text
from ._pictures import density_pair, figure_of, new_axes
from ._report import Report
from ._samples import column_pictures, is_image, plane
from ._two_samples import two_sample_table

EXACT_DIM = 32
"""Numbers in an example up to which the divergence is computed exactly."""

SHOWN = 40
PAIRS = 10


def diffusion_report(
    denoiser: AbstractDenoiser,
    real: ArrayLike,
    *,
    train: ArrayLike | None = None,
    sampler: AbstractSampler | None = None,
    cond: PyTree = None,
    samples: ArrayLike | None = None,
    num_samples: int = 256,
    num_likelihoods: int = 16,
    bin_width: float | None = None,
    x_scaler: Standardizer | None = None,
    title: str = "Diffusion model",
    key: PRNGKey | None = None,
) -> Report:
    """Return a page on a diffusion model: samples, distances, neighbours, likelihoods.

    ```python
    report = diffusion_report(denoiser, x_test, train=x_train, num_samples=64)
    report.save("diffusion.html")
    ```

    **Arguments:**

    - `denoiser`: the trained model.
    - `real`: held-out rows, as the model takes them.
    - `train`: the training rows. They are a second set of real rows for the distances,
        and samples are compared with the nearest of them.
    - `sampler`: `ExpAB(18)` by default.
    - `cond`: conditions of the held-out rows, one along the leading axis of every leaf;
        samples are drawn for them too.
    - `samples`: drawn before; by default they are drawn here.
    - `num_samples`: how many, at most one for each held-out row.
    - `num_likelihoods`: held-out rows, and as many training rows, whose density is
        computed, which takes hundreds of evaluations for each; 0 for none.
    - `bin_width`: for bits per dimension, see `diffusion.bits_per_dim`.
    - `x_scaler`: of standardised rows, to show them in the units of the data.
    - `title`: of the page.
    - `key`: of the samples, `jax.random.key(0)` by default.

    **Raises:** `ValueError` for samples of another shape than the rows.
    """
    key = jax.random.key(0) if key is None else key
    check_key(key)
    sampler = ExpAB(18) if sampler is None else sampler
    sample_key, score_key, level_key, trace_key = jax.random.split(key, 4)
    real = np.asarray(real, np.float32)
    count = min(num_samples, len(real))
    if samples is None:
        draws = sample(
            denoiser,
            sampler,
            key=sample_key,
            num_samples=count,
            shape=real.shape[1:],
            cond=_first(cond, count),
        )
        samples = np.asarray(draws.x_0)
    samples = np.asarray(samples, np.float32)
    if samples.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"samples have shape {samples.shape[1:]} and the rows {real.shape[1:]}"
        )
    known = None if train is None else np.asarray(train, np.float32)
    sections = [
        _summary(denoiser, sampler, real, samples),
        _samples(samples, real, x_scaler),
        _distances(samples, real, known, score_key),
    ]
    if known is not None:
        sections.append(_neighbours(samples, real, known, x_scaler))
    sections.append(_levels(denoiser, real, cond, level_key))
    if num_likelihoods:
        rows = {"held-out rows": real}
        if known is not None and cond is None:
            rows["training rows"] = known
        sections.append(
            _likelihoods(denoiser, rows, cond, num_likelihoods, bin_width, trace_key)
        )
    return Report(title, sections)


def _first(cond: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], cond)


def _flat(rows: Float[np.ndarray, "rows ..."]) -> Float[np.ndarray, "rows dim"]:
    return rows.reshape(len(rows), -1)


def _shown(rows: np.ndarray, scaler: Standardizer | None) -> np.ndarray:
    return rows if scaler is None else np.asarray(scaler.inverse(rows))


def _summary(denoiser, sampler, real, samples) -> Section:
    return Section(
        "Model",
        [
            Table(
                ("", ""),
                [
                    ("schedule", type(denoiser.schedule).__name__),
                    ("parameters", tree.count(denoiser)),
                    ("sampler", type(sampler).__name__),
                    ("shape of a row", " x ".join(map(str, real.shape[1:]))),
                    ("samples", len(samples)),
                    ("held-out rows", len(real)),
                ],
            )
        ],
    )


def _samples(samples, real, scaler) -> Section:
    shown = _shown(samples, scaler), _shown(real, scaler)
    if is_image(real):
        limits = float(shown[1].min()), float(shown[1].max())
        figures: list[tuple[Figure, str]] = [
            (_grid(shown[0], limits), "Samples of the model, not selected."),
            (_grid(shown[1], limits), "Held-out rows of the data."),
        ]
    elif real[0].size == 2:
        figures = [(plane(*shown), "Samples and held-out rows.")]
    else:
        figures = column_pictures(*shown)
    return Section("Samples beside data", [Picture(*pair) for pair in figures])


def _grid(images: np.ndarray, limits: tuple[float, float]) -> Figure:
    figure = sample_grid(images[:SHOWN], columns=8, limits=limits, titles=("", ""))
    return figure


def _distances(samples, real, train, key) -> Section:
    sets = {"samples": _flat(samples)}
    if train is not None:
        order = np.random.default_rng(0).permutation(len(train))
        sets["training rows"] = _flat(train)[order[: len(real)]]
    mean, std = _flat(real).mean(axis=0), _flat(real).std(axis=0)
    noise = np.random.default_rng(1).normal(size=(len(real), _flat(real).shape[1]))
    sets["independent Gaussians"] = mean + std * noise
    # One scale for all columns: pixels at the margin are not blown up.
    scale = float(_flat(real).std())
    scaled = {name: (rows - mean) / scale for name, rows in sets.items()}
    table = two_sample_table(scaled, (_flat(real) - mean) / scale, key=key)
    return Section("Distance to held-out rows", [table])


def _neighbours(samples, real, train, scaler) -> Section:
    index, distance = nearest(_flat(samples), _flat(train))
    _, usual = nearest(_flat(real), _flat(train))
    near, fraction = copies(distance, usual)
    blocks: list[Any] = [
        Text(
            f"{fraction:.1%} of the samples are nearer to a training row than "
            f"{near:.3g}, the distance below which 1 % of held-out rows are. A much "
            "larger fraction than 1 % means that the model repeats training rows."
        ),
        Picture(
            density_pair(
                {"held-out rows": usual, "samples": distance},
                label="distance to the nearest training row",
            ),
            "Samples to the left of the held-out rows are too close to what the model "
            "was trained on; to the right they are unlike any row.",
        ),
    ]
    if is_image(real):
        closest = np.argsort(distance)[:PAIRS]
        shown = np.concatenate([samples[closest], train[index[closest]]])
        everything = _shown(real, scaler)
        limits = float(everything.min()), float(everything.max())
        figure = sample_grid(
            _shown(shown, scaler), columns=len(closest), limits=limits, titles=("", "")
        )
        blocks.append(
            Picture(
                figure,
                "Above: samples closest to training rows. Below: those rows.",
            )
        )
    return Section("Nearest training rows", blocks)


def _levels(denoiser, real, cond, key) -> Section:
    rows, cond = real[:1000], _first(cond, 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = level_errors(denoiser, rows, cond, key=key)
    texts = [str(one.message) for one in caught]
    advice = [Text(text[:1].upper() + text[1:]) for text in texts]
    ax = new_axes()
    ax.loglog(found.levels, found.error, marker="o", markersize=3, label="model")
    ax.loglog(found.levels, found.linear, "--", color="0.55", label="best linear")
    ax.set_xlabel("noise level, in standard deviations of the data")
    ax.set_ylabel("mean squared error")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return Section(
        "Error at each noise level",
        [
            *advice,
            Picture(
                figure_of(ax),
                "The network should be below the best linear denoiser at every level; "
                "where it is above, it has been trained too little there.",
            ),
        ],
    )


def _likelihoods(denoiser, rows, cond, count, bin_width, key) -> Section:
    dim = next(iter(rows.values()))[0].size
    trace = ExactTrace() if dim <= EXACT_DIM else Hutchinson(4)
    lines = []
    for name, data in rows.items():
        out = map_examples(
            log_prob,
            denoiser,
            data[:count],
            cond=_first(cond, count),
            trace=trace,
            key=key,
            rtol=1e-3,
            atol=1e-3,
        )
        nats = np.asarray(out.value, np.float64)
        error = nats.std(ddof=1) / np.sqrt(len(nats)) if len(nats) > 1 else np.nan
        line = [name, len(nats), float(nats.mean()), float(error)]
        if bin_width is not None:
            line.append(float(bits_per_dim(out.value.mean(), dim, bin_width)))
        lines.append(line)
    head = ["", "rows", "log-density, nats", "standard error"]
    if bin_width is not None:
        head.append("bits per dimension")
    return Section(
        "Likelihoods",
        [
            Table(
                head,
                lines,
                "By the probability flow, in the units that the model takes. Training "
                "rows that are much more probable than held-out rows show overfitting.",
            )
        ],
    )
