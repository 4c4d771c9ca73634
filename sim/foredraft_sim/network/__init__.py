"""Emulated links: rate, delay, jitter, loss, outages and traces."""
