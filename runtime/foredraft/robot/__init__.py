"""A small world for a robot with eyes: things on a floor, what it sees of them, and where its plans take it.

Pure functions and plain values; numpy draws, nothing here needs a model. Whoever plans for the robot (the expert, a
model behind Foredraft) gets a view and an instruction at each decision and answers with a plan.
"""
