"""Cutting a stream of bytes into frames."""

from __future__ import annotations

from collections.abc import Iterator

from vanadium_node.errors import ProtocolError
from vanadium_node.wire.frames import LARGE_BYTES


class FrameSplitter:
    """Cuts a stream of bytes into the contents of frames, however the bytes come.

    Holds at most one incomplete frame, and looks at it again only when it is complete: a peer that sends a byte at a time
    costs a byte's work each time, not a frame's.
    """

    __slots__ = ("_held", "_wanted", "incomplete", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.incomplete = 0
        """How many frames came in pieces so far: another number is another frame."""
        self._held = bytearray()
        self._wanted = 1

    @property
    def is_clean(self) -> bool:
        """Whether the bytes so far end with a whole frame, as they must when the peer closes."""
        return not self._held

    def split(self, data: bytes) -> Iterator[bytes | memoryview]:
        """Yield the content of each frame that `data` completes, of large ones as a view, so that it is copied once at most.

        Raises ProtocolError, after which nothing more is right. `max_frame_bytes` is read at each frame, so that it can be
        raised between two of them.
        """
        start, size = 0, len(data)
        while self._held:
            taken = min(start + self._wanted - len(self._held), size)
            self._held += memoryview(data)[start:taken]
            start = taken
            if len(self._held) < self._wanted:
                return
            begin, end = self._bounds(self._held, 0, self._wanted)
            if end > self._wanted:  # so far it was the header
                self._wanted = end
                continue
            whole, self._held = memoryview(self._held)[begin:end], bytearray()
            yield whole if end - begin >= LARGE_BYTES else bytes(whole)
        while start < size:
            begin, end = self._bounds(data, start, size)
            if end > size:
                self._held += memoryview(data)[start:]
                self._wanted = end - start
                self.incomplete += 1
                return
            yield data[begin:end] if end - begin < LARGE_BYTES else memoryview(data)[begin:end]
            start = end

    def _bounds(self, data: bytes | bytearray, start: int, size: int) -> tuple[int, int]:
        """Return where the content of the frame at `start` begins and ends; beyond `size` when more bytes are needed."""
        first = data[start]
        if 0x40 <= first < 0x58:
            return start + 1, start + 1 + first - 0x40
        if not 0x58 <= first <= 0x5A:
            raise ProtocolError(
                "the peer does not speak this protocol: its bytes are no CBOR byte string"
                if first != 0x5B
                else f"a frame is larger than the limit of {self.max_frame_bytes} bytes"
            )
        digits = 1 << (first - 0x58)
        begin = start + 1 + digits
        if begin > size:
            return begin, begin
        length = int.from_bytes(data[start + 1 : begin])
        if length > self.max_frame_bytes:
            raise ProtocolError(f"a frame of {length} bytes is larger than the limit of {self.max_frame_bytes} bytes")
        if length < (24, 0x100, 0x10000)[first - 0x58]:
            raise ProtocolError("a frame's length is not in its shortest form")
        return begin, begin + length
