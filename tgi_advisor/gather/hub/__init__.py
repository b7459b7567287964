"""The Hugging Face Hub, asked: client.py over huggingface_hub's session, read.py what for, wording.py what went wrong.

What needs no network needs no huggingface_hub either, nor the time its import takes, and stands beside this folder:
environment.py, names.py, downloaded.py (the cache that huggingface_hub keeps), cache.py (ours).
"""
