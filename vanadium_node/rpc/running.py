"""A call whose method can wait, and so is run by a worker."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Protocol

import trio

from vanadium_node.errors import CallError, ErrorCode, InputError
from vanadium_node.rpc.call import Call
from vanadium_node.rpc.deadlines import carry
from vanadium_node.rpc.limiting import PeerLoad
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.service import Method
from vanadium_node.rpc.tracing import enter_trace
from vanadium_node.rpc.types import Codec
from vanadium_node.rpc.workers import Worker

ITEMS_IN_A_ROW: Final = 64
"""A method that yields without waiting lets others run after so many items; its credit may last for a hundred thousand."""


class Answering(Protocol):
    """The connection that a call came on."""

    link: Link
    credit: trio.lowlevel.ParkingLot
    """Where whoever wants to send items waits for credit."""

    def answer(self, number: int, method: Method, result: Any) -> None:
        """Answer with a result."""

    def answer_error(self, number: int, method: Method, error: Exception) -> None:
        """Answer with what the method raised."""

    def finish(self, number: int) -> None:
        """Forget the call, and send its answer."""


@dataclass(slots=True, eq=False)
class Running:
    """A call that is being run by a worker."""

    session: Answering
    number: int
    method: Method
    call: Call
    values: list[Any]
    load: PeerLoad
    worker: Worker | None = None

    def started(self, worker: Worker) -> None:
        """Take note of the worker, to be able to cancel it."""
        self.worker = worker

    def cancel(self) -> None:
        """Have the method cancelled at its next checkpoint."""
        if self.worker is not None:
            self.worker.scope.cancel()

    async def run(self) -> None:
        """Run the method and answer. The calls that it makes carry the trace and the deadline on."""
        if self.call.trace_id:
            enter_trace(self.call.trace_id)
        carried = carry(self.call.deadline) if self.call.deadline != inf else None
        try:
            if self.method.items_out is not None:
                await self._stream_items(self.method.items_out)
                result = None
            else:
                result = await self.method.function(self.call, *self.values)
        except Exception as error:  # noqa: BLE001 - whatever a method raises is the answer to its call
            self.session.answer_error(self.number, self.method, error)
        else:
            self.session.answer(self.number, self.method, result)
        finally:
            if carried is not None:
                carried.deadline = inf
            self.session.finish(self.number)

    async def _stream_items(self, codec: Codec) -> None:
        """Send what a method yields, as far as the caller gives credit, in batches."""
        link, number = self.session.link, self.number
        connection = link.connection
        sent = 0
        async with aclosing(self.method.function(self.call, *self.values)) as items:
            async for item in items:
                try:
                    value = codec.to_wire(item)
                except InputError as error:
                    sentence = f"{self.method.name} yielded something that cannot be sent: {error.message}"
                    raise CallError(ErrorCode.INTERNAL, sentence) from error
                while not connection.may_send_item(number):
                    if number not in connection.incoming:
                        return
                    await self.session.credit.park()
                connection.send_item(number, value)
                link.wake()
                sent += 1
                if link.is_full:
                    await link.drained()
                elif sent % ITEMS_IN_A_ROW == 0:
                    await trio.lowlevel.checkpoint()
