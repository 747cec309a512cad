"""`k8slite demo`: a cluster from birth to death, its leaders killed under load, told as it happens.

story.py     the steps, in order
load.py      the steady writes, and what must be true of them afterwards
requests.py  the steady requests to a Service
tools.py     kubectl and k8slite as a user runs them
rules.py     the host's own packet rules, which no cluster touches
show.py      what the person sees
"""
