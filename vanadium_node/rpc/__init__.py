"""Calls between principals: services as classes, connections that prove both ends, streams, deadlines, cancellation.

Built on `wire` (the protocol without I/O) and `security` (who counts as what); it knows nothing of what services do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from vanadium_node.rpc.call import Call, PeerIdentity
from vanadium_node.rpc.call_stream import CallStream
from vanadium_node.rpc.client import Client
from vanadium_node.rpc.connecting import connect
from vanadium_node.rpc.intercepting import ClientInterceptor, Interceptor, OutgoingCall
from vanadium_node.rpc.naming import Name, TcpAddress, UnixAddress
from vanadium_node.rpc.observing import Observer
from vanadium_node.rpc.server import Server, serve
from vanadium_node.rpc.service import Service, method
from vanadium_node.security.access import Tag

if TYPE_CHECKING:
    from vanadium_node.rpc.pool import ClientPool, open_pool
    from vanadium_node.rpc.pooled_client import PooledClient
    from vanadium_node.rpc.retrying import Retrying

__all__ = [
    "Call",
    "CallStream",
    "Client",
    "ClientInterceptor",
    "ClientPool",
    "Interceptor",
    "Name",
    "Observer",
    "OutgoingCall",
    "PeerIdentity",
    "PooledClient",
    "Retrying",
    "Server",
    "Service",
    "Tag",
    "TcpAddress",
    "UnixAddress",
    "connect",
    "method",
    "open_pool",
    "serve",
]

_LATER: Final = {"ClientPool": "pool", "PooledClient": "pooled_client", "Retrying": "retrying", "open_pool": "pool"}
"""Names whose modules are imported when they are asked for: agents in pods have no use for them, and memory counts there."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
