"""A cluster as processes of one machine: what `k8slite up`, `down` and `chaos` do.

What is wanted, and where it is:
spec.py           what the user asked for, and what follows from it: names, addresses (pure)
timings.py        Kubernetes' own timings, and the short ones of `--fast` (pure)
layout.py         where a cluster's files are; which clusters there are
lock.py           who may start, stop or delete a cluster
placing.py        ports and ranges that nobody else has, found and held in one step
machine.py        what this machine and user can have: containers or processes, iptables or not
pki.py            certificate authorities and identities
kubeconfig.py     the self-contained kubeconfig
cleanup.py        undo everything, whatever died before

The supervisor's process:
launch.py         starts it, and the zygote
daemon.py         its entry: what must begin before an event loop is imported
certificates.py   a child that makes certificates beside the zygote's imports
lifecycle.py      a cluster's life: brought up in order, taken down in order
supervisor.py     starts components and keeps them running
kept.py           one component's life: pauses, chaos, when it is given up
operations.py     answers on the control socket: status, stop, chaos
chaos.py          targets such as raft-leader or node-1, and what is done to them
control.py        both ends of the control socket
reporter.py       what the `up` that waits is told
link.py           its end of the zygote

Forked processes:
zygote.py         imports everything once, then forks components from it
child.py          the life of such a process: logging, signals, its channel to the supervisor
components.py     what runs in one, by role; context.py, control_plane.py, node_parts.py and
                  node_network.py open them
jobs.py           short work in a process of its own
"""
