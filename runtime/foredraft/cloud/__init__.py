"""The verifying end: one service, its sessions, and what they decide.

No socket, no model, and no clock but the running loop's.
"""
