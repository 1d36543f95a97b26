"""TODO jaxprob/_engine."""
