"""The deployment a person asks for: its records, its reader, its schema."""
