r"""Simulation-based inference: from a simulator to the posterior of its parameters.

The prior (`ParameterSpace`) turns parameters into vectors of real numbers, `simulate`
runs the simulator, `fit_posterior` trains an average of conditional denoisers on the
pairs, and `SimulatorPosterior` samples and evaluates $p(\theta \mid x)$ for any x.
"""
