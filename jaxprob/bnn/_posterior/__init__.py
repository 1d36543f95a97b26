"""TODO jaxprob/bnn/_posterior."""
