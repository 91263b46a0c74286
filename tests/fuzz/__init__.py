"""Random and odd requests to every method of the service: strategies, a service, a judge."""
