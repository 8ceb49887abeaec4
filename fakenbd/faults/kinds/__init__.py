"""The kinds of faults, a module for each family; importing this makes all of them known."""

from fakenbd.faults.kinds import answers, connections, messages, octets, pauses, tls

__all__ = ["answers", "connections", "messages", "octets", "pauses", "tls"]
