"""The objects that a fresh cluster has before anybody asks for them."""
