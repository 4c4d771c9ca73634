"""Validation: real sessions on this machine beside the same ones simulated from its measured profile."""
