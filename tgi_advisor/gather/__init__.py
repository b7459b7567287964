"""Reads the outside world: the Hub, folders, caches, this machine. Nothing else does."""
