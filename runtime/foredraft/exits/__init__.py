"""Early exits: heads that say, from the middle of the target, what it will say at its end."""
