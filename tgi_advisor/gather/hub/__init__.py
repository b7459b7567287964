"""The Hugging Face Hub: a few GETs instead of a client library, and the folders its own tools keep."""
