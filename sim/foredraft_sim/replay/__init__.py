"""Recorded sessions again in simulated time, as they were or under another link, device or policy."""
