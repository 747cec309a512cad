"""Pods in numbers: sets, deployments, daemons, and the budgets that protect them."""
