"""What pyOpenSSL has no method for, and cryptography binds: used where it is there, and done without where it is not."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

lib: Final[Any] = getattr(SSL, "_lib", None)
ffi: Final[Any] = getattr(SSL, "_ffi", None)
"""What cryptography binds of OpenSSL; None where pyOpenSSL keeps it elsewhere."""
HAS_PENDING: Final = ffi is not None and hasattr(lib, "BIO_get_mem_data")
HAS_GROUPS: Final = hasattr(lib, "SSL_CTX_set1_curves_list") and hasattr(lib, "ERR_clear_error")

_place: Final[Any] = ffi.new("char **") if HAS_PENDING else None


def has_more(tls: SSL.Connection) -> bool:
    """Tell whether OpenSSL has not read all yet of what was written for it; where it cannot be told, there may be more.

    Asking for another record, only to hear that there is none, costs several times as much.
    """
    written = getattr(tls, "_into_ssl", None) if HAS_PENDING else None
    return written is None or bool(lib.BIO_get_mem_data(written, _place) > 0)


def choose_groups(context: SSL.Context, names: bytes) -> bool:
    """Have a context offer these groups for the key exchange, and a share of the first; tell whether OpenSSL knows them all.

    Otherwise it keeps its own, and sends shares of two.
    """
    inner = getattr(context, "_context", None) if HAS_GROUPS else None
    if inner is None:
        return False
    if lib.SSL_CTX_set1_curves_list(inner, names) == 1:
        return True
    lib.ERR_clear_error()
    return False
