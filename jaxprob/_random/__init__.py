"""TODO jaxprob/_random."""
