"""TODO jaxprob/lightning/_logging."""
