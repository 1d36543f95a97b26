"""TODO jaxprob/lightning/_checkpoint."""
