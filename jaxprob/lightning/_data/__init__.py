"""TODO jaxprob/lightning/_data."""
