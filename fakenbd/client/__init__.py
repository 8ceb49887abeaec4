"""The model answer: a client that is strict about framing and forgiving where an answer is safe."""

from fakenbd.client.channel import Deadlines
from fakenbd.client.client import Client
from fakenbd.client.noncompliance import Noncompliance
from fakenbd.client.session import Listed, Offer, Session
from fakenbd.client.target import Target
from fakenbd.client.tls import TLS

__all__ = [
    "TLS",
    "Client",
    "Deadlines",
    "Listed",
    "Noncompliance",
    "Offer",
    "Session",
    "Target",
]
