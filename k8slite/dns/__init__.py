"""The cluster's DNS: names of services and pods, everything else asked outside.

zone.py      what names there are, kept from services and endpoints (pure)
packets.py   questions and answers as bytes (pure, on dnspython)
forward.py   questions about the rest of the world, put to the machine's own name servers
server.py    UDP and TCP
objects.py   the service kube-dns, through which pods find all this
dns.py       the whole: opens and closes it
"""
