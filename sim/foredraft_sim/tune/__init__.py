"""``foredraft tune``: the best parameters of policies for a scenario, found in simulated time."""
