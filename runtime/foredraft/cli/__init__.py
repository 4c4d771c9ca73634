"""The command line: one file for each verb, found by entry points."""
