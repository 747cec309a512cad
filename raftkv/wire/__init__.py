"""Bytes between members and clients: framing and the vocabulary of requests. Pure, no I/O."""
