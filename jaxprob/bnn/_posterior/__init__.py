r"""Posteriors $q(w)$: distributions over models, in which every method ends.

A draw is a model of the user's own class. There are single models, finitely many draws,
independent and correlated Gaussians, mixtures of posteriors, and the prior itself.
`save_posterior` writes any of them to a file.
"""
