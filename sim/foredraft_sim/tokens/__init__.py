"""What models say in a simulation, without the models: synthetic pairs, and pairs out of records."""
