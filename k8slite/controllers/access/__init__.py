"""Accounts, tokens, certificates, roles, and the state of policies."""
