"""TODO jaxprob/bnn/_inference."""
