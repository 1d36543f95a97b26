"""Conditional networks: super-resolution of digits, and signals of a class.

    python -m benchmarks.conditional [--quick] [--mnist FOLDER]

**Digits.** A `UNet` with an image condition draws digits of 8 x 8 pixels (28 x 28 with
`--mnist`) given half of the resolution. The table has the peak signal-to-noise ratio of
bicubic interpolation, of one sample, and of the mean of 16 samples, on test images, and
how far samples are from the given pixels when they are averaged in blocks of two.

**Signals.** A `UNet` over one axis draws signals of 32 points of one of three classes,
Gaussian processes of known covariance. The classifier is exact (Bayes' rule with the
true densities), and so is the power spectrum.

Learning rates are chosen by the denoising loss on an inner validation part.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxprob
from jaxprob.datasets import digits, mnist
from jaxprob.diffusion import (
    EDM,
    DenoisingLoss,
    ExpAB,
    LogNormalLevels,
    Preconditioned,
    nn,
    sample,
)

LEARNING_RATES = 1e-3, 3e-3
LENGTH, FREQUENCIES = 32, (2, 5, 9)
MEAN_OF = 16


def trained(make, data, *, num_steps, learning_rate):
    """Return the average of the weights of a run."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, 50, num_steps)
    x, _ = data
    denoiser = Preconditioned.fitted(make(), EDM(), x)
    loss = DenoisingLoss(times=LogNormalLevels.fitted(denoiser, x))
    decay = jaxprob.EMA(1.0 - 10.0 / num_steps)
    learner = jaxprob.GradientDescent(loss, optax.adam(schedule), ema=decay)
    settings = {"num_steps": num_steps, "batch_size": 64, "progress": False}
    key = jax.random.key(1)
    state, _ = jaxprob.fit(learner, denoiser, data, key=key, **settings)
    return learner.model(state), loss


def chosen(make, data, num_steps):
    """Return a denoiser whose learning rate was chosen on a fifth of the rows."""
    rows = np.random.default_rng(0).permutation(len(data[0]))
    first, last = np.split(rows, [len(rows) * 4 // 5])
    inner, held = (jax.tree.map(lambda a, r=r: a[r], data) for r in (first, last))
    held = jax.tree.map(lambda a: a[:256], held)
    errors = []
    for rate in LEARNING_RATES:
        model, loss = trained(make, inner, num_steps=num_steps // 2, learning_rate=rate)
        value, _ = jax.jit(loss)(model, held, key=jax.random.key(2))
        errors.append(float(value))
    rate = LEARNING_RATES[int(np.argmin(errors))]
    print(f"  validation losses {errors}, learning rate {rate:g}")
    return trained(make, data, num_steps=num_steps, learning_rate=rate)[0]


def halved(x):
    """Return means of blocks of two by two pixels."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def bicubic(low):
    n, c, h, w = low.shape
    return np.asarray(jax.image.resize(low, (n, c, 2 * h, 2 * w), "cubic"))


def psnr(x, truth):
    """Return the mean over images of the peak signal-to-noise ratio, in decibels."""
    error = np.mean((np.clip(x, 0.0, 1.0) - truth) ** 2, axis=(1, 2, 3))
    return float(np.mean(-10.0 * np.log10(error)))


def super_resolution(num_steps, num_test, folder):
    data = digits() if folder is None else mnist(folder)
    x, truth = (
        a.reshape(len(a), 1, *a.shape[-2:]) for a in (data.x_train, data.x_test)
    )
    x, truth = x.astype(np.float32), truth[:num_test].astype(np.float32)
    low = halved(truth)
    given, test_given = bicubic(halved(x)), bicubic(low)
    widths = (16, 32) if folder is None else (32, 64, 64)

    def make():
        shape = x.shape[1:]
        return nn.UNet(shape, widths=widths, in_channels=2, key=jax.random.key(0))

    print(f"digits {x.shape[2]} x {x.shape[3]}, {len(truth)} test images")
    denoiser = chosen(make, (x, given), num_steps)
    cond = np.repeat(test_given, MEAN_OF, axis=0)
    draws = sample(
        denoiser,
        ExpAB(18),
        key=jax.random.key(3),
        num_samples=len(cond),
        shape=x.shape[1:],
        cond=cond,
        batch_size=256,
    )
    draws = np.asarray(draws.x_0).reshape(len(truth), MEAN_OF, *x.shape[1:])
    distance = np.sqrt(np.mean((halved(draws[:, 0]) - low) ** 2))
    print(f"  bicubic               {psnr(test_given, truth):6.2f} dB")
    print(f"  one sample            {psnr(draws[:, 0], truth):6.2f} dB")
    print(f"  mean of {MEAN_OF} samples    {psnr(draws.mean(1), truth):6.2f} dB")
    print(
        f"  distance to the given pixels {distance:.3f}, their spread {low.std():.3f}"
    )


def covariances():
    """Return the covariance of each class: a noisy wave of one frequency, periodic."""
    lags = np.arange(LENGTH)
    lags = (lags[:, None] - lags[None]) / LENGTH
    waves = [np.cos(2.0 * np.pi * f * lags) for f in FREQUENCIES]
    return np.stack([0.7 * wave + 0.3 * np.eye(LENGTH) for wave in waves])


def log_densities(x):
    """Return the log-density of each signal in each class, up to one constant."""
    rows = []
    for covariance in covariances():
        _, log_det = np.linalg.slogdet(covariance)
        solved = np.linalg.solve(covariance, x.T).T
        rows.append(-0.5 * np.sum(x * solved, axis=1) - 0.5 * log_det)
    return np.stack(rows, axis=1)


def spectrum(x):
    """Return the mean power of each frequency."""
    return np.mean(np.abs(np.fft.rfft(x)) ** 2, axis=0) / LENGTH


def signals(num_steps, num_test):
    roots = np.linalg.cholesky(covariances())
    rng = np.random.default_rng(0)

    def draw(num):
        labels = rng.integers(0, len(FREQUENCIES), num)
        noise = rng.standard_normal((num, LENGTH))
        return np.einsum("nij,nj->ni", roots[labels], noise), labels

    x, labels = draw(8000)
    fresh, fresh_labels = draw(num_test)

    def make():
        return nn.UNet(
            (1, LENGTH), widths=(16, 32), num_classes=3, key=jax.random.key(0)
        )

    print(f"signals of {LENGTH} points, {num_test} samples")
    denoiser = chosen(make, (x.astype(np.float32)[:, None], labels), num_steps)
    draws = sample(
        denoiser,
        ExpAB(18),
        key=jax.random.key(3),
        num_samples=num_test,
        shape=(1, LENGTH),
        cond=jnp.asarray(fresh_labels),
        batch_size=256,
    )
    found = np.asarray(draws.x_0, float)[:, 0]
    for name, rows in (("data", fresh), ("samples", found)):
        right = np.mean(log_densities(rows).argmax(1) == fresh_labels)
        errors = []
        for k, covariance in enumerate(covariances()):
            exact = np.fft.fft(covariance[0]).real[: LENGTH // 2 + 1]
            power = spectrum(rows[fresh_labels == k])
            errors.append(np.sum(np.abs(power - exact)) / np.sum(exact))
        print(
            f"  {name:8} of the requested class {right:.3f}, error of the power "
            f"spectrum {np.mean(errors):.3f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="600 steps, not 4,000")
    parser.add_argument("--mnist", metavar="FOLDER", help="MNIST and not 8 x 8 digits")
    args = parser.parse_args()
    num_steps, num_test = (600, 64) if args.quick else (4000, 256)
    signals(num_steps, 8 * num_test)
    super_resolution(num_steps, num_test, args.mnist)


if __name__ == "__main__":
    main()
