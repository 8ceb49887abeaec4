"""The truth: what an export holds, what it claims, and what it says about its extents."""

from fakenbd.export.content import (
    PERIOD,
    Computed,
    Content,
    Hex,
    Pattern,
    RandomBytes,
    Stored,
    Text,
    Zeros,
    describe_origin,
)
from fakenbd.export.export import ALL_FLAGS, Export, Source
from fakenbd.export.extents import (
    ExtentList,
    Policy,
    Query,
    Repeated,
    Script,
    Scripted,
    Truth,
    Unwritten,
    parse_extent,
    parse_size,
)
from fakenbd.export.file import File
from fakenbd.protocol.negotiated import BlockSize

__all__ = [
    "ALL_FLAGS",
    "PERIOD",
    "BlockSize",
    "Computed",
    "Content",
    "Export",
    "ExtentList",
    "File",
    "Hex",
    "Pattern",
    "Policy",
    "Query",
    "RandomBytes",
    "Repeated",
    "Script",
    "Scripted",
    "Source",
    "Stored",
    "Text",
    "Truth",
    "Unwritten",
    "Zeros",
    "describe_origin",
    "parse_extent",
    "parse_size",
]
