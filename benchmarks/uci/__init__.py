"""The UCI regression benchmark on its standard splits.

    python -m benchmarks.uci --data PATH [--method M] [--sets ...] [--splits 0-19]

One hidden layer of 50 units (100 for protein), the published splits of 90 % and 10 %,
inputs and target standardised on the training rows; errors and log-likelihoods are of
the test rows, in original units. No setting sees a test row: the default method has
one set of settings for all sets, and those of the others are chosen on a fifth of the
training rows.
"""
