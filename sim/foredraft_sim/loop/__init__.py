"""Simulated time: an asyncio event loop on SimPy."""
