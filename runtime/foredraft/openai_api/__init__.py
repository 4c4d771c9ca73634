"""OpenAI's HTTP interface over an edge: what clients of theirs say, and what they expect to hear."""
