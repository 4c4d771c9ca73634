"""``foredraft bench policies``: every policy against streaming from the cloud, on the same tokens, in simulated time."""
