"""Engines that take over from TGI: what their flags are, how a deployment is said in them, what they make of a GPU.

One folder per engine; `facts` reads their tables, `translate` writes a TGI deployment in an engine's words, `memory`
is their start-up sum.
"""
