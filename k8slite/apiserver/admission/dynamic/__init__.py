"""Admission by what users have written: policies in CEL, and webhooks.

Owns: what they are told of a request, and which of them are asked. Configurations are read from the
mirror at each request; where there are none, a request costs nothing.
"""
