"""A server's first words in the same flight as its part of the TLS handshake: what pyOpenSSL has no method for.

A TLS 1.3 server may send as soon as it has read the client's hello (RFC 8446 §2, figure 1: application data after the server's
Finished), and the exporter that both ends are bound to is fixed by then (§7.5). So a server's `auth` frame goes with its certificate,
and the client answers with its own Finished, its `auth` and its first request at once: a round trip less for each connection.
To whom it speaks, the server does not know before the client's Finished, and need not: it shows itself to anybody first.

OpenSSL has the functions, and cryptography binds them; where a later release does not, the frame waits for the end of the handshake,
as other peers may do: both orders are the same to the client.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

from vanadium_node.rpc.openssl import ffi, lib

_FINISH: Final = 2
"""SSL_READ_EARLY_DATA_FINISH: the hello is read, and no early data of the client's came with it."""

IS_AVAILABLE: Final = (
    ffi is not None
    and all(hasattr(lib, name) for name in ("SSL_read_early_data", "SSL_write_early_data"))
    and all(hasattr(SSL.Connection, name) for name in ("_raise_ssl_error",))
)


def hear_hello(tls: SSL.Connection) -> bool:
    """Take the client's hello from what has been written to the channel; tell whether it is whole. Raises SSL.Error."""
    connection: Any = tls
    nothing, count = ffi.new("char[1]"), ffi.new("size_t *")
    status = lib.SSL_read_early_data(connection._ssl, nothing, 1, count)
    if status == _FINISH:
        return True
    try:
        connection._raise_ssl_error(connection._ssl, -1)
    except SSL.WantReadError:
        return False
    raise SSL.Error("the client sent early data, which is not taken")


def write(tls: SSL.Connection, data: bytes | memoryview) -> None:
    """Encrypt data between the server's Finished and the client's. Raises SSL.Error."""
    connection: Any = tls
    count = ffi.new("size_t *")
    with ffi.from_buffer(data) as content:
        if lib.SSL_write_early_data(connection._ssl, content, len(content), count) != 1 or count[0] != len(content):
            connection._raise_ssl_error(connection._ssl, -1)
            raise SSL.Error("nothing can be sent before the handshake is done")
