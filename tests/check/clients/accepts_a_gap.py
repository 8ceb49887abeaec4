"""Takes a reply that left out some of the data, and calls it zeroes."""

from wire import Wire, output, path, size

wire = Wire(path(), structured=True)
reply = wire.read(0, size())
wire.leave()
data = bytearray(size())
for offset, piece in reply.data.items():
    data[offset : offset + len(piece)] = piece
output(bytes(data))
