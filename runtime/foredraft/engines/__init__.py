"""Targets and drafters: torch, n-gram lookup, scripted, and any of them paced to another device."""
