"""TODO jaxprob/bnn/_joint."""
