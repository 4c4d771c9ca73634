"""How many devices a server carries, and which servers a fleet needs, before they are bought."""
