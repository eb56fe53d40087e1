"""The protocol between two ends, without I/O: bytes in, events out; wishes in, bytes out.

A connection is a CBOR sequence (RFC 8742) of byte strings. Each byte string is a *frame*: one CBOR array that begins with
its kind and its stream, `[kind, stream, …]` (`frames`). The byte string's own header is the length, so a reader needs no
other framing, and refuses a length beyond its limit before it holds a single byte of it.

Three small machines stand on one another, each with its table as data:

*   `handshake` — who may say what before both ends have shown their blessings. The server speaks first, so that a client
    that does not trust it closes without having shown anything of itself. Each end signs its role, the TLS exporter
    (RFC 9266) and the digest of what it shows, so an `auth` frame is worth nothing in another connection (replay), in the
    other direction (reflection), or with other blessings.
*   `stream` — one call: a request, items both ways, the caller's `end`, and the callee's one response or the caller's
    cancel. Streams opened by the client are odd, by the server even. Frames of a stream that has been closed are dropped,
    because a cancel and a response may cross; frames of one that never was break the protocol.
*   `connection` — all streams of one connection, opening, draining (`goaway`), closing.

`flow` counts credit. Only items spend it; an item may be sent while the credit of its stream and of the connection are
both above zero, and so overdraws by one frame at most. A receiver therefore holds at most a window and a frame per stream
and per connection, whatever the peer does, and an item larger than the window cannot stall.

A fault of the peer is a state, not an exception: the machine goes to FAILED, stays there, queues a `goaway` that says
why, and reports one last event. Exceptions leave this package only where our own caller misuses it.
"""
