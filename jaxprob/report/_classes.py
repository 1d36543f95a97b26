"""Sections about predictions of class labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .. import metrics
from ..plot import reliability_diagram, risk_coverage_curves
from ._baselines import class_losses
from ._parts import Picture, Section, Table, Text
from ._pictures import figure_of, new_axes, parts_of_uncertainty
from ._regression import NUM_WORST, shown_inputs
from ._scores import Losses, scores_table

MOST_CLASSES = 20


def class_sections(
    labels: Int[np.ndarray, " rows"],
    log_probs: Float[np.ndarray, "rows classes"],
    mutual_information: Float[np.ndarray, " rows"] | None,
    baselines: Mapping[str, Losses],
    *,
    class_names: Sequence[str],
    x: Any = None,
    names: Sequence[str] = (),
) -> list[Section]:
    """Return scores, reliability, selection, the worst rows, parts of uncertainty.

    **Arguments:**

    - `labels`: what came true.
    - `log_probs`: logarithms of the probabilities of all classes.
    - `mutual_information`: epistemic part of the entropy, in nats, if it is known.
    - `baselines`: losses of other predictions of the same rows, by name.
    - `class_names`: of the classes.
    - `x`, `names`: inputs of the rows and their names, shown beside the worst rows.
    """
    probs = np.exp(log_probs)
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    entropy = -np.sum(np.where(probs > 0, probs * log_probs, 0.0), axis=1)
    sections = [
        Section(
            "Scores",
            [
                scores_table(class_losses(labels, log_probs), baselines),
                _by_class(labels, probs, class_names),
            ],
        ),
        _reliability(labels, probs),
        _selection(labels, probs, entropy, mutual_information),
        _worst(labels, log_probs, class_names, x, names),
    ]
    if mutual_information is not None:
        sections.append(_parts(entropy, mutual_information))
    return sections


def _by_class(labels, probs, class_names) -> Table:
    predicted = probs.argmax(axis=1)
    rows = []
    for k, name in enumerate(class_names[:MOST_CLASSES]):
        own, called = labels == k, predicted == k
        hits = int((own & called).sum())
        wrong = np.bincount(predicted[own & ~called], minlength=len(class_names))
        rows.append(
            (
                name,
                int(own.sum()),
                hits / own.sum() if own.any() else np.nan,
                hits / called.sum() if called.any() else np.nan,
                class_names[int(wrong.argmax())] if wrong.any() else "",
            )
        )
    more = len(class_names) - MOST_CLASSES
    return Table(
        ("class", "rows", "recall", "precision", "most often taken for"),
        rows,
        f"And {more} more classes." if more > 0 else "",
    )


def _reliability(labels, probs) -> Section:
    bins = int(np.clip(len(labels) // 20, 5, 15))
    curve = metrics.reliability_curve(labels, probs, num_bins=bins)
    confidence, hits = probs.max(axis=1).mean(), (probs.argmax(axis=1) == labels).mean()
    chance = 2.0 * np.sqrt(hits * (1.0 - hits) / len(labels))
    verdict = "which agree within chance"
    if abs(confidence - hits) > chance:
        verdict = "too certain" if confidence > hits else "not certain enough"
    return Section(
        "Calibration",
        [
            Text(
                f"The mean confidence is {confidence:.1%} and the accuracy {hits:.1%} "
                f"± {chance:.1%} (two standard errors): {verdict}."
            ),
            Picture(
                figure_of(reliability_diagram(curve, ax=new_axes(4.8, 4.2))),
                "Below the diagonal the model is too certain, above it not certain "
                "enough.",
            ),
        ],
    )


def _selection(labels, probs, entropy, mutual_information) -> Section:
    wrong = (probs.argmax(axis=1) != labels).astype(np.float32)
    scores = {"entropy": entropy, "by chance": 0.0 * entropy}
    if mutual_information is not None:
        scores = {"entropy": entropy, "epistemic part": mutual_information, **scores}
    curves = {
        name: metrics.risk_coverage(wrong, np.asarray(score, np.float32))
        for name, score in scores.items()
    }
    ax = risk_coverage_curves(curves, risk_label="error rate", ax=new_axes())
    return Section(
        "Keeping the certain rows",
        [
            Picture(
                figure_of(ax),
                "Errors among the rows that are kept when the most uncertain are left "
                "to somebody else. A useful uncertainty falls to the left.",
            )
        ],
    )


def _worst(labels, log_probs, class_names, x, names) -> Section:
    own = np.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0]
    inputs, names = shown_inputs(x, names)
    rows = [
        (
            int(row),
            class_names[labels[row]],
            float(np.exp(own[row])),
            class_names[int(log_probs[row].argmax())],
            float(np.exp(log_probs[row].max())),
            *(inputs[row] if inputs is not None else ()),
        )
        for row in np.argsort(own)[:NUM_WORST]
    ]
    return Section(
        "Worst rows",
        [
            Text(
                "The rows whose class the model believed least. Look at them first: "
                "wrong labels are among them."
            ),
            Table(
                ("row", "class", "its probability", "predicted", "probability", *names),
                rows,
                "Rows are counted from 0.",
            ),
        ],
    )


def _parts(entropy, mutual_information) -> Section:
    share = float(mutual_information.sum() / max(entropy.sum(), 1e-300))
    return Section(
        "What kind of uncertainty",
        [
            Text(
                f"{share:.0%} of the entropy is epistemic: more data like the training "
                "rows would take it away. The rest is overlap of the classes."
            ),
            Picture(
                parts_of_uncertainty(
                    np.maximum(mutual_information, 0.0),
                    np.maximum(entropy - mutual_information, 0.0),
                    unit="nats",
                ),
                "Above the diagonal the model does not know these rows; below it the "
                "classes overlap.",
            ),
        ],
    )
