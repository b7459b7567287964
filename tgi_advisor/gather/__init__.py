"""Reads the outside world: the Hub, folders, caches, shipped snapshots, this machine. Nothing else does."""
