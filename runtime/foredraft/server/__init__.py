"""The cloud's HTTP server."""
