"""Checkers: what must be true of what was seen, written apart from the systems they judge."""
