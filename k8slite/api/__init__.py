"""What a Kubernetes object is: kinds, schemas, defaults, validation, patches, tables. Pure: no
clock, no I/O, no trio.

An object is a plain dict in its JSON shape; nothing here makes a class per kind. This file imports
nothing, so that a client that wants only `meta` does not pay for the rest.
"""
