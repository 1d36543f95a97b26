"""Simulators that processes can import."""

import numpy as np


def normal(theta, rng):
    return theta["mean"] + rng.normal(size=3)


def fails(theta, rng):
    if theta["mean"] > 0.0:
        raise ArithmeticError("the mean is positive")
    return theta["mean"] + rng.normal(size=3)


def forgets_its_rng(theta, rng):
    return theta["mean"] + np.random.default_rng().normal(size=3)


def grows(theta, rng):
    return np.zeros(3 + int(theta["mean"] > 0.0))
