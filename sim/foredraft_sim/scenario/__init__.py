"""Scenarios: who talks to whom over what; their replications, and what came of them."""
