"""What pyOpenSSL has no method for, and cryptography binds: used where it is there, and done without where it is not."""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL

_lib: Final[Any] = getattr(SSL, "_lib", None)
_ffi: Final[Any] = getattr(SSL, "_ffi", None)
HAS_PENDING: Final = _ffi is not None and hasattr(_lib, "BIO_get_mem_data") and hasattr(SSL.Connection, "bio_write")
HAS_GROUPS: Final = hasattr(_lib, "SSL_CTX_set1_curves_list") and hasattr(_lib, "ERR_clear_error")

_place: Final[Any] = _ffi.new("char **") if HAS_PENDING else None


def has_more(tls: SSL.Connection) -> bool:
    """Tell whether OpenSSL has not read all yet of what was written for it; where it cannot be told, there may be more.

    Asking for another record, only to hear that there is none, costs several times as much.
    """
    if not HAS_PENDING:
        return True
    connection: Any = tls
    return bool(_lib.BIO_get_mem_data(connection._into_ssl, _place) > 0)


def choose_groups(context: SSL.Context, names: bytes) -> bool:
    """Have a context offer these groups for the key exchange, and a share of the first; tell whether OpenSSL knows them all.

    Otherwise it keeps its own, and sends shares of two.
    """
    if not HAS_GROUPS:
        return False
    inner: Any = context
    if _lib.SSL_CTX_set1_curves_list(inner._context, names) == 1:
        return True
    _lib.ERR_clear_error()
    return False
