"""TODO jaxprob/lightning/_trainer."""
