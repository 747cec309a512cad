"""The cloud that a cluster thinks it runs in: this machine.

provider.py   what is asked of a cloud; the local one hands out addresses of a pool (pure)
service.py    the service controller: Services of type LoadBalancer get an address and keep it

Who answers at such an address is the nodes' business: `k8slite.network.announce` as root; in user
space the proxy listens there itself.
"""
