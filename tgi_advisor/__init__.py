"""Which token limits of text-generation-inference fit your GPU, before you rent it."""

__version__ = "0.1.0"
