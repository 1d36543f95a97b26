"""Classifier two-sample test of a posterior at one observation."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float


class LocalC2ST(NamedTuple):
    """Result of `local_c2st`.

    **Fields:**

    - `statistic`: mean squared distance of the classifier's probability from 1/2.
    - `p_value`: that of an exact posterior's being at least as large.
    - `null`: statistics under the hypothesis that the posterior is exact.
    """

    statistic: float
    p_value: float
    null: Float[np.ndarray, " null"]


def local_c2st(
    truth: Float[Array | np.ndarray, "sims params"],
    draws: Float[Array | np.ndarray, "sims params"],
    x: Float[Array | np.ndarray, "sims features"],
    observed: Float[Array | np.ndarray, " entries"],
    observed_draws: Float[Array | np.ndarray, "draws params_there"],
    *,
    num_null: int = 100,
    classifier: Any = None,
    seed: int = 0,
) -> LocalC2ST:
    r"""Test whether a posterior is right at one observation, without its true answer.

    A classifier learns to tell the pairs $(\theta, x)$ of the simulator from
    $(\tilde\theta, x)$ with $\tilde\theta$ drawn from the posterior given x. At the
    observation it is asked about draws of the posterior, and the statistic is

    $$t = \frac1M \sum_m \big(d(\tilde\theta_m, x_o) - \tfrac12\big)^2,$$

    which is small where both cannot be told apart. Its distribution under the
    hypothesis is that of classifiers for which the labels of each pair are exchanged by
    chance. Ranks and TARP are averages over all observations; this one is about yours.

    Reference: *L-C2ST: Local Diagnostics for Posterior Approximations in
    Simulation-Based Inference*, Linhart, Gramfort and Rodrigues, 2023,
    https://arxiv.org/abs/2306.03580, algorithms 1 and 2.

    ```python
    test = local_c2st(truth, draws, x, observed, observed_draws, num_null=100)
    test.p_value  # small: the posterior is wrong at `observed`
    ```

    **Arguments:**

    - `truth`, `x`: parameters and observations of simulations that the posterior was
        not trained on, thousands of them.
    - `draws`: one draw of the posterior given each x.
    - `observed`, `observed_draws`: the observation, and draws given it.
    - `num_null`: number of classifiers with exchanged labels. The smallest p-value is
        1 / (num_null + 1).
    - `classifier`: any of scikit-learn's with `predict_proba`; by default a perceptron
        of two hidden layers with ten units for each input, which stops early.
    - `seed`: of the classifiers and the exchanges.

    **Raises:** `ValueError` for shapes that do not fit, or NaN.
    """
    arrays = {"truth": truth, "draws": draws, "x": x, "observed_draws": observed_draws}
    arrays = {name: np.asarray(a, float) for name, a in arrays.items()}
    arrays["observed"] = np.asarray(observed, float)[None]
    _check(arrays, num_null)
    one, other, x, draws_there, there = (
        arrays[name] for name in ("truth", "draws", "x", "observed_draws", "observed")
    )
    x_mean, x_scale = _units(x)
    mean, scale = _units(other)
    x, there = (x - x_mean) / x_scale, (there - x_mean) / x_scale
    one, other, draws_there = ((a - mean) / scale for a in (one, other, draws_there))
    inputs = np.hstack([draws_there, np.repeat(there, len(draws_there), axis=0)])
    rng = np.random.default_rng(seed)

    def statistic(first, second):
        fitted = _fitted(classifier, first, second, x, rng)
        probability = fitted.predict_proba(inputs)[:, 1]
        return float(np.mean((probability - 0.5) ** 2))

    found = statistic(one, other)
    null = []
    for _ in range(num_null):
        exchanged = rng.random((len(x), 1)) < 0.5
        null.append(
            statistic(np.where(exchanged, other, one), np.where(exchanged, one, other))
        )
    as_large = np.sum(np.asarray(null) >= found)
    return LocalC2ST(found, float((1 + as_large) / (1 + num_null)), np.asarray(null))


def _fitted(classifier, first, second, x, rng):
    from sklearn.base import clone
    from sklearn.neural_network import MLPClassifier

    features = np.vstack([np.hstack([first, x]), np.hstack([second, x])])
    if classifier is None:
        units = (10 * features.shape[1],) * 2
        model: Any = MLPClassifier(units, max_iter=1000, early_stopping=True)
    else:
        model: Any = clone(classifier)
    if "random_state" in model.get_params():
        model.set_params(random_state=int(rng.integers(2**31)))
    return model.fit(features, np.repeat([0, 1], len(x)))


def _units(array):
    scale = array.std(axis=0)
    return array.mean(axis=0), np.where(scale > 0.0, scale, 1.0)


def _check(arrays, num_null):
    shapes = {name: array.shape for name, array in arrays.items()}
    num = shapes["truth"][:1]
    fit = (
        all(len(shape) == 2 for shape in shapes.values())
        and shapes["draws"] == shapes["truth"]
        and shapes["x"][:1] == num
        and shapes["observed"][1:] == shapes["x"][1:]
        and shapes["observed_draws"][1:] == shapes["truth"][1:]
    )
    if not fit:
        raise ValueError(
            f"the shapes {shapes | {'observed': shapes['observed'][1:]}} do not fit: "
            "give truth and draws (sims, params), x (sims, features), observed "
            "(features,) and observed_draws (draws, params)"
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name} has an entry that is not finite: leave its row out"
            )
    if num_null < 1:
        raise ValueError(f"num_null={num_null}: give at least 1")
