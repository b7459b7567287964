"""A Docker Engine as the place where servers run."""
