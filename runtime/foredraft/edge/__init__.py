"""The drafting end: one session on the device, from a prompt to the complete text.

No socket, no model, and no clock but the running loop's.
"""
