"""The worlds that tests live through: whole as the code is, and broken by each mutation of it."""

SEED, SESSIONS = 1, 300
