"""What replies to options are judged against: the contents of earlier replies of the handshake."""

from __future__ import annotations

import attrs

from fakenbd.protocol.constants import Option
from fakenbd.protocol.messages import InfoBlockSize, InfoExport, InfoQuery, OptionRequest

__all__ = ["OptionProgress"]


@attrs.define(eq=False)
class OptionProgress:
    """The contents of earlier replies of one handshake that later ones depend on; bounded.

    One for each connection. Its owner calls `begin` when it is an option's turn; the judge updates
    the rest. `final`: the option has its final reply; `acked`: it was NBD_REP_ACK. `count`: replies
    before it. `infos`: the defined types of NBD_REP_INFO that came, as bits. `contexts`: names by
    id, from NBD_REP_META_CONTEXT.
    """

    final: bool = False
    acked: bool = False
    count: int = 0
    infos: int = 0
    export: InfoExport | None = None
    block_size: InfoBlockSize | None = None
    contexts: dict[int, str] = attrs.field(factory=dict)
    confirmed: InfoExport | None = None
    """The reply to NBD_OPT_INFO right before an NBD_OPT_GO with the same data."""
    tls_required: bool = False
    """NBD_REP_ERR_TLS_REQD came."""
    tls_forced: bool = False
    """... for an option other than INFO and GO, which means for all."""
    tls_refused: bool = False
    """NBD_OPT_STARTTLS got an error that means that there is no TLS."""
    _request: OptionRequest | None = None

    def begin(self, request: OptionRequest) -> None:
        """It is the turn of `request`."""
        last, self._request = self._request, request
        confirmed = (
            self.acked
            and last is not None
            and (last.option, request.option) == (Option.INFO, Option.GO)
            and isinstance(request.body, InfoQuery)
            and last.body == request.body
        )
        self.confirmed = self.export if confirmed else None
        self.final = self.acked = False
        self.count = self.infos = 0
        self.export = self.block_size = None
        self.contexts = {}
