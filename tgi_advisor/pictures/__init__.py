"""Answers to look at: a table becomes a figure, and a figure is drawn on a terminal or into a file.

The drawing libraries are those of the extra `plots`; they are imported when something is drawn.
"""
