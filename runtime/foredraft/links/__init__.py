"""Links: WebSocket, memory, and what measures, shapes or listens to them."""
