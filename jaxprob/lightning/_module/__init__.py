"""TODO jaxprob/lightning/_module."""
