"""The reference client: strict about framing, tolerant where the result is certainly correct."""

from fakenbd.client.block_device import BlockDevice
from fakenbd.client.channel import Timeouts
from fakenbd.client.client import Client
from fakenbd.client.copy import Copied, copy
from fakenbd.client.export_info import ExportInfo, Listed
from fakenbd.client.listing import describe_export, list_export_infos, list_exports
from fakenbd.client.map import Run, map_export, qemu_json
from fakenbd.client.noncompliance import Noncompliance
from fakenbd.client.pool import Pool
from fakenbd.client.resilient import ResilientClient, RetryPolicy
from fakenbd.client.target import Target
from fakenbd.client.tls import TLS

__all__ = [
    "TLS",
    "BlockDevice",
    "Client",
    "Copied",
    "ExportInfo",
    "Listed",
    "Noncompliance",
    "Pool",
    "ResilientClient",
    "RetryPolicy",
    "Run",
    "Target",
    "Timeouts",
    "copy",
    "describe_export",
    "list_export_infos",
    "list_exports",
    "map_export",
    "qemu_json",
]
