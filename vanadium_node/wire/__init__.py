"""The protocol between two ends, without I/O: bytes in, events out; wishes in, bytes out.

Nothing here waits, reads a clock or holds a socket. `rpc` drives a `Connection`: it hands over what the peer sent and acts on
the events, and it tells what it wishes and sends `outgoing`. So each rule below can be tried alone, with any division of the
bytes, and the tables of states can be held against the machine pair by pair.

**Framing.** A connection is a CBOR sequence (RFC 8742) of byte strings. Each byte string is a *frame*: one CBOR array that
begins with its kind and its stream, `[kind, stream, …]` (`frames`); stream 0 is the connection itself. The byte string's own header is the length, so a reader
needs no other framing; it refuses a length beyond its limit before it holds a single byte of the content, and looks at a
frame that comes in pieces once, when it is whole. CBOR is taken in its shortest form only: no longer heads than needed, no
indefinite lengths, no tags, no key twice, bounded depth (`cbor.decode_frame`; what is signed has its keys sorted, too). So two
readers cannot understand one frame differently, and what was signed can be rebuilt from what was read. Unknown kinds below 32
end the connection, since they could matter; those from 32 on are ignored, so that later versions can add some.

**Binding.** TLS 1.3 below gives secrecy and a channel; its certificates are made at start and prove nothing. The TLS exporter
(RFC 9266) is a secret that both ends of one channel have in common and no other channel has: whoever sits between two ends
has two channels with two different values. What an end signs with that value in it is worth something on this channel only.
A unix socket has no exporter and needs none: the system names the peer, so nobody shows itself, and `auth` is a fault there.

**Auth.** Each end signs its role, the binding, and the digest of everything it shows: versions, key, blessings, discharges
(`handshake`). The role stops reflection (a server's own frame sent back to it), the binding stops replay on another connection,
the digest stops exchanging one part for another's. The server shows itself first: a client that does not trust it leaves
without having shown anything. Until both are known only `auth` and `goaway` are heard, and frames are limited to what
credentials can need, since strangers get no more. Later either may show itself again, when its blessings are renewed. What
blessings are *worth* is not decided here: a signature says who holds the key, and caveats are judged at each call, by `rpc`.

**Streams.** A stream is one call (`stream`): a request, items both ways, the caller's `end`, and the callee's one response or
the caller's cancel. Either end may call. Streams opened by the client are odd, by the server even, and numbers only grow, so
two ends never choose the same one, and whether a stream that is not open was open once is told by its number: a closed one
costs no memory. That matters because a cancel and a response may cross: frames of a closed stream are dropped, while frames
of one that never was break the protocol. A cancel wants no answer; the callee forgets the stream as the caller has.

**Credit.** Only items spend it (`flow`); requests are bounded by number and by bytes, and everything else is small. An item may
be sent while the credit of its stream and of the connection are both above zero, and so overdraws by one frame at most: an
item larger than the window cannot stall. A receiver therefore holds at most a window and a frame for each stream, and for the
connection, whatever the peer does. Credit comes back when somebody has read an item, not when it arrived, in batches of half
a window, so that the sender never waits for a reader that keeps up. Items of a closed stream give back the connection's
credit at once: nobody will read them, and without this each cancelled stream would leave the connection a little poorer.
The windows are part of the protocol, since both ends count with them. More credit than 2³¹ is a fault: no window is that large.

**Goaway.** With an empty code it says: no new calls, the running ones finish (draining). A call that crosses it is answered
`overloaded`, which is safe to repeat elsewhere, since it has not run. With a code it gives the reason for which the sender ends
the connection now. After a fault nothing else is sent, and nothing is looked at.

**Ping.** Asks for a sign of life; the pong carries the same number. Whoever was silent for too long is asked, and closed when
it stays silent. More pings in one batch than anybody needs are a fault, since each makes the other end send something.

Each of the three machines has its table as data, complete: for every state and event, the state it leads to, or an error.

| table | states | events |
| --- | --- | --- |
| `handshake.TRANSITIONS`, for each role | START, SHOWN or SEEN, OPEN | `auth` and other frames, sent and received |
| `events.TRANSITIONS`, for a connection | ACTIVE, DRAINING, FAILED | requests, a goaway, a fault |
| `stream.TRANSITIONS`, for a call | IDLE, OPEN, ENDED, CLOSED | its frames, by whoever may send them |

A fault of the peer is a state, not an exception: the machine goes to FAILED and stays there, forgets its streams, queues one
`goaway` that says why, and reports one last event. Exceptions leave this package only where our own caller misuses it.

`tests/vectors/session.txt` is a whole session, both directions, with each byte explained.
"""
