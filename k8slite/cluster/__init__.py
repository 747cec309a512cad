"""A cluster as processes of one machine: what `k8slite up`, `down` and `chaos` do.

spec.py         what the user asked for, and what follows from it: names, addresses, timings (pure)
layout.py       where a cluster's files are; which clusters there are
pki.py          certificate authorities and identities
kubeconfig.py   the self-contained kubeconfig
machine.py      what this machine and user can have: containers or processes, iptables or not

zygote.py       imports everything once, then forks components from it
components.py   what runs in a forked process, by role
child.py        the life of such a process: logging, signals, its channel to the supervisor
supervisor.py   starts components in order, restarts the dead, answers on the control socket
chaos.py        targets such as raft-leader or node-1, and what is done to them
control.py      both ends of the control socket
cleanup.py      undo everything, whatever died before
"""
