"""``foredraft bench policies``: each policy against streaming from the cloud, on the same tokens, simulated."""
