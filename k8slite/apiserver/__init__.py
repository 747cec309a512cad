"""The stateless apiserver: any number of them over one store."""

from k8slite.apiserver.config import ApiserverConfig, StaticToken, StoreConfig
from k8slite.apiserver.server import Apiserver, open_apiserver

__all__ = ["Apiserver", "ApiserverConfig", "StaticToken", "StoreConfig", "open_apiserver"]
