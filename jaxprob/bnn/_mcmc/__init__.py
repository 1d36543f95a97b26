"""TODO jaxprob/bnn/_mcmc."""
