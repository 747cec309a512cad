"""Pods that end: jobs, cron jobs, and what is deleted after them."""
