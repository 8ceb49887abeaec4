"""The kinds of faults, a module for each family; importing this makes all of them known."""

from fakenbd.faults.kinds import answers, byte_faults, connections, messages, timing, tls

__all__ = ["answers", "byte_faults", "connections", "messages", "timing", "tls"]
