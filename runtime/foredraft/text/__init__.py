"""Tokens and text: the tokenizer, whole characters as they come, stop strings."""
