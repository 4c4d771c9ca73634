"""Where simulations run: in this process, in several of this machine, or on the workers of a Dask scheduler."""
