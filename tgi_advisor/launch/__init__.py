"""A `Container` on the Docker Engine: look first, start it, watch it come up, hold it to its prediction."""
