"""Pairs fitted to records: the statistics of somebody's own texts, and how far simulations with them are off."""
