"""NetworkPolicies: which of a node's pods may be reached by whom, and whom they may reach.

plan.py      from policies, pods and namespaces to what each pod of a node is allowed (pure)
rules.py     from there to nftables, and from one state to the next (pure)
enforcer.py  the loop from the API to nft
"""
