"""A whole set of services and atomstream processes on one machine, for trying a cluster and for tests."""
