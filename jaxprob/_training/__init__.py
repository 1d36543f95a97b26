"""TODO jaxprob/_training."""
