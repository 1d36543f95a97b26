r"""The loss of a denoiser, $E\,w(t)\,\|D - x_0\|^2$, and checks before training.

`weighting.py` has the weights w, `times.py` the distributions of training times.
`level_errors.py` compares a trained denoiser with the best linear one at each level.
"""
