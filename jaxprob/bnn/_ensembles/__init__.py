"""Posteriors from several trained models, or from the path and noise of one.

`DeepEnsemble` repeats any method, and its posterior is the uniform mixture of its
members; a member trained by `AnchoredMAP` is a posterior draw where the model is linear
in its weights. `SWAG` fits a Gaussian to the iterates of SGD, and `MCDropout` draws the
masks of dropout layers.
"""
