"""TODO jaxprob/bnn/_laplace."""
