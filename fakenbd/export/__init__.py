"""Exports: their content, the values they advertise, and their extents."""

from fakenbd.export.content import (
    PERIOD,
    BytesContent,
    Content,
    FunctionContent,
    Hex,
    Pattern,
    RandomBytes,
    Text,
    Zeros,
    describe_origin,
)
from fakenbd.export.export import ALL_FLAGS, Export, StableRead
from fakenbd.export.extents import (
    AllData,
    ExtentList,
    ExtentSource,
    FunctionExtents,
    Policy,
    Query,
    Repeated,
    TrueExtents,
    parse_extent,
    parse_size,
)
from fakenbd.export.file import File
from fakenbd.protocol.negotiated import BlockSize

__all__ = [
    "ALL_FLAGS",
    "PERIOD",
    "AllData",
    "BlockSize",
    "BytesContent",
    "Content",
    "Export",
    "ExtentList",
    "ExtentSource",
    "File",
    "FunctionContent",
    "FunctionExtents",
    "Hex",
    "Pattern",
    "Policy",
    "Query",
    "RandomBytes",
    "Repeated",
    "StableRead",
    "Text",
    "TrueExtents",
    "Zeros",
    "describe_origin",
    "parse_extent",
    "parse_size",
]
