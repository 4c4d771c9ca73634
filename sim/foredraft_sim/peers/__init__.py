"""What others have published, as policies on our runtime: on the same tokens, links and devices.

``foredraft bench peers`` runs them beside ours.
"""
