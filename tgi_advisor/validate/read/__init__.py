"""The readers, one file per form."""
