"""One member of the store: the replica actor, its peers, its clients and their watches."""

from raftkv.server.config import ServerConfig
from raftkv.server.main import Server, open_server

__all__ = ["Server", "ServerConfig", "open_server"]
