"""Toy sets of known distribution, drawn from a seed."""

import numpy as np
from jaxtyping import Float, Int

from ._seed import Seed, generator
from ._split import Split

Points = tuple[Float[np.ndarray, "samples 2"], Int[np.ndarray, " samples"]]


def heteroscedastic_truth(
    x: Float[np.ndarray, "*shape"],
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Return mean and standard deviation of y given x in the `heteroscedastic` set.

    m(x) = x + sin(2 pi x) / 2 and s(x) = 0.2 x on [0, 1]: noise from 0 to 0.2. Outside
    [0, 1] the noise is that of the nearer end.
    """
    x = np.asarray(x)
    return x + 0.5 * np.sin(2.0 * np.pi * x), 0.2 * np.clip(x, 0.0, 1.0)


def heteroscedastic(
    *,
    num_train: int = 200,
    num_val: int = 100,
    num_test: int = 200,
    gap: tuple[float, float] = (0.45, 0.7),
    seed: Seed = 0,
) -> Split:
    """Draw a curve with increasing noise, y = m(x) + s(x) e, without data in a gap.

    A good model finds aleatoric noise that increases with x as in
    `heteroscedastic_truth`, and epistemic uncertainty that is large in the gap and
    outside [0, 1] and small elsewhere.

    ```python
    data, x_scaler, y_scaler = heteroscedastic(seed=0).standardize()
    ```

    **Arguments:**

    - `num_train`, `num_val`, `num_test`: rows of each part, drawn independently.
    - `gap`: x is uniform on [0, 1] without this interval.
    - `seed`: a number, or a key of JAX.

    **Raises:** `ValueError` for a gap that is not a proper part of [0, 1].
    """
    low, high = gap
    if not (0.0 <= low <= high <= 1.0) or high - low >= 1.0:
        raise ValueError(f"gap={gap}: give a proper part (low, high) of [0, 1]")
    if min(num_train, num_test) < 1 or num_val < 0:
        raise ValueError(
            f"num_train={num_train}, num_val={num_val}, num_test={num_test}: give at "
            "least 1 training and 1 test row"
        )
    rng = generator(seed)

    def draw(num):
        x = rng.uniform(0.0, 1.0 - (high - low), (num, 1))
        x = np.where(x < low, x, x + (high - low))
        mean, std = heteroscedastic_truth(x)
        y = mean + std * rng.standard_normal((num, 1))
        return x.astype(np.float32), y.astype(np.float32)

    (x_train, y_train), (x_val, y_val), (x_test, y_test) = map(
        draw, (num_train, num_val, num_test)
    )
    return Split(
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        x_val=x_val if num_val else None,
        y_val=y_val if num_val else None,
        feature_names=("x",),
        target_names=("y",),
        name="heteroscedastic",
    )


def _check(num_samples: int, noise: float) -> None:
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples}: give at least 1")
    if noise < 0.0:
        raise ValueError(f"noise={noise}: give a standard deviation of at least 0")


def two_moons(num_samples: int = 1000, *, noise: float = 0.1, seed: Seed = 0) -> Points:
    """Draw two interleaved half circles of radius 1, with Gaussian noise.

    The upper one (class 0) is centred at (0, 0), the lower (class 1) at (1, 1/2).

    **Arguments:**

    - `num_samples`: number of points, half of them in each class (the first class has
        one more of an odd number).
    - `noise`: standard deviation of the noise in each coordinate.
    - `seed`: a number, or a key of JAX.

    **Returns:** points and labels, in random order.
    """
    _check(num_samples, noise)
    rng = generator(seed)
    labels = rng.permutation(np.arange(num_samples) % 2)
    angle = rng.uniform(0.0, np.pi, num_samples)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1.0 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    x = np.where(labels[:, None] == 0, upper, lower)
    x = x + noise * rng.standard_normal((num_samples, 2))
    return x.astype(np.float32), labels.astype(np.int32)


def gaussian_ring(
    num_samples: int = 1000, *, num_modes: int = 8, std: float = 0.05, seed: Seed = 0
) -> Points:
    """Draw a mixture of equal Gaussians on a circle, with variance 1 per coordinate.

    The means are at the angles 2 pi k / num_modes on the circle of radius
    sqrt(2 (1 - std^2)), which gives each coordinate variance 1 for three modes or more.

    **Arguments:**

    - `num_samples`: number of points.
    - `num_modes`: number of Gaussians, at least 3.
    - `std`: standard deviation of each in each coordinate, below 1.
    - `seed`: a number, or a key of JAX.

    **Returns:** points and the numbers of their Gaussians.
    """
    _check(num_samples, std)
    if num_modes < 3 or std >= 1.0:
        raise ValueError(
            f"num_modes={num_modes}, std={std}: give at least 3 modes and "
            "std below 1, for variance 1 in each coordinate"
        )
    rng = generator(seed)
    labels = rng.integers(num_modes, size=num_samples)
    angle = 2.0 * np.pi * labels / num_modes
    radius = np.sqrt(2.0 * (1.0 - std**2))
    x = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = x + std * rng.standard_normal((num_samples, 2))
    return x.astype(np.float32), labels.astype(np.int32)


def spirals(
    num_samples: int = 1000,
    *,
    num_arms: int = 2,
    num_turns: float = 1.5,
    noise: float = 0.02,
    seed: Seed = 0,
) -> Points:
    """Draw arms of a spiral, r = u, angle = 2 pi (num_turns u + arm / num_arms).

    u is the root of a uniform number, so that points are not denser at the centre.

    **Arguments:**

    - `num_samples`: number of points, divided evenly among the arms.
    - `num_arms`: number of arms; each is a class.
    - `num_turns`: turns of each arm from the centre to radius 1.
    - `noise`: standard deviation of the noise in each coordinate.
    - `seed`: a number, or a key of JAX.

    **Returns:** points and labels, in random order.
    """
    _check(num_samples, noise)
    if num_arms < 1:
        raise ValueError(f"num_arms={num_arms}: give at least 1")
    rng = generator(seed)
    labels = rng.permutation(np.arange(num_samples) % num_arms)
    radius = np.sqrt(rng.uniform(size=num_samples))
    angle = 2.0 * np.pi * (num_turns * radius + labels / num_arms)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    x = x + noise * rng.standard_normal((num_samples, 2))
    return x.astype(np.float32), labels.astype(np.int32)
