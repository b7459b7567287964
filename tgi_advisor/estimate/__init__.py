"""Bytes on one GPU, one file per part of the sum."""
