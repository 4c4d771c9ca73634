"""What both ends share, and all that they share: messages, the draft tree, sampling, and the ports to the world."""
