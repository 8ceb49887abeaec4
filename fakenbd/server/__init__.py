"""The fake server in trio: listeners, sessions, TLS, and a server in a thread."""

from fakenbd.server.background import BackgroundServer, background_server
from fakenbd.server.factory import open_server, prepare
from fakenbd.server.server import Server
from fakenbd.server.tls import TLS

__all__ = ["TLS", "BackgroundServer", "Server", "background_server", "open_server", "prepare"]
