"""TODO jaxprob/bnn/_ensembles."""
