"""Samples and densities under each of several denoisers, and their disagreement.

Denoisers from a posterior over weights give as many diffusion models. Where they
disagree the data did not decide: that is the epistemic uncertainty.
"""
