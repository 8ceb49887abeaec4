"""Telling: a server that answers truly and then applies the lies."""

from fakenbd.server.background import BackgroundServer, background_server
from fakenbd.server.opening import open_server, prepare
from fakenbd.server.server import Server
from fakenbd.server.tls import TLS

__all__ = ["TLS", "BackgroundServer", "Server", "background_server", "open_server", "prepare"]
