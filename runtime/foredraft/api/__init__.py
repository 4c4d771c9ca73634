"""The Python API: an edge that connects to a cloud, a cloud of one's own, and engines by name."""
