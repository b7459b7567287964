"""A Container as text: one file per format."""
