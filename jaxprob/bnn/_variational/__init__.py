"""TODO jaxprob/bnn/_variational."""
