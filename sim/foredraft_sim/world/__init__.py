"""A world to test an application in: the API of ``foredraft`` in simulated time, and what may happen there."""
