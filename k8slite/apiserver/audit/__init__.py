"""Audit: what was asked, by whom, and what was answered, as a policy says, in lines of JSON."""
