"""What ``foredraft bench`` measures of the simulator, and policies in it."""
