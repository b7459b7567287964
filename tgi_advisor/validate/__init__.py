"""Reads deployment files people already have and says what TGI will make of them."""
