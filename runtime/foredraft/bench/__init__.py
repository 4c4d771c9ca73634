"""What ``foredraft bench`` measures: one file for each question, each with the bound that it is held to."""
