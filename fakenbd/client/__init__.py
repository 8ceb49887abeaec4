"""The reference client: strict about framing, tolerant where the result is certainly right."""

from fakenbd.client.channel import Deadlines
from fakenbd.client.client import Client
from fakenbd.client.commands import Commands
from fakenbd.client.copy import Copied, copy
from fakenbd.client.export_info import Listed, Offer
from fakenbd.client.listing import describe_export, list_exports, list_offers
from fakenbd.client.map import Run, map_export, qemu_json
from fakenbd.client.noncompliance import Noncompliance
from fakenbd.client.pool import Pool
from fakenbd.client.resilient import Policy, ResilientClient
from fakenbd.client.target import Target
from fakenbd.client.tls import TLS

__all__ = [
    "TLS",
    "Client",
    "Commands",
    "Copied",
    "Deadlines",
    "Listed",
    "Noncompliance",
    "Offer",
    "Policy",
    "Pool",
    "ResilientClient",
    "Run",
    "Target",
    "copy",
    "describe_export",
    "list_exports",
    "list_offers",
    "map_export",
    "qemu_json",
]
