"""Who may call what: an authorizer looks at both ends' names and answers None, or a refusal with its reason."""

from collections.abc import Callable
from dataclasses import dataclass

from vanadium_node.errors import VanadiumError
from vanadium_node.security.access import Permissions
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.validation import Validation


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A call, as an authorizer sees it. `peer_public_key` is None where the peer proved none: on a unix socket, where the system
    names its user, `peer_uid`, and the groups it is in, `peer_gids`.
    """

    local_names: tuple[str, ...]
    peer: Validation
    peer_public_key: PublicKey | None
    local_public_key: PublicKey | None
    method: str = ""
    tags: frozenset[str] = frozenset()
    peer_address: str = ""
    peer_uid: int | None = None
    peer_gids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is not allowed: which names were presented, and why those that were rejected do not count."""

    reason: str

    def __str__(self) -> str:
        return self.reason


Authorizer = Callable[[AuthorizationRequest], Refusal | None]


def everyone(_request: AuthorizationRequest) -> Refusal | None:
    """Allow every call."""
    return None


def default_authorizer(request: AuthorizationRequest) -> Refusal | None:
    """Allow a peer of whom one name extends one of ours, or the other way round."""
    for local in request.local_names:
        for peer in request.peer.accepted:
            if Pattern.of_name(local).is_matched_by(peer) or Pattern.of_name(peer).is_matched_by(local):
                return None
    ours = ", ".join(request.local_names) or "none"
    return Refusal(
        f"{describe_peer(request.peer)}; none of these extends or is extended by a name of this end ({ours})"
    )


def user_authorizer(uid: int) -> Authorizer:
    """Allow one user of this machine, on unix sockets."""

    def authorize(request: AuthorizationRequest) -> Refusal | None:
        if request.peer_uid == uid:
            return None
        return Refusal(f"the caller is user {request.peer_uid}; only user {uid} is allowed")

    return authorize


def public_key_authorizer(key: PublicKey) -> Authorizer:
    """Allow the holder of one key."""

    def authorize(request: AuthorizationRequest) -> Refusal | None:
        if request.peer_public_key == key:
            return None
        return Refusal(f"the peer's public key is {request.peer_public_key}; only {key} is allowed")

    return authorize


def pattern_authorizer(*patterns: Pattern) -> Authorizer:
    """Allow peers with a name that matches one of the patterns."""

    def authorize(request: AuthorizationRequest) -> Refusal | None:
        if any(pattern.matches(request.peer.accepted) for pattern in patterns):
            return None
        wanted = ", ".join(map(str, patterns))
        return Refusal(f"{describe_peer(request.peer)}; a name that matches {wanted} is needed")

    return authorize


def permissions_authorizer(permissions: Permissions | Callable[[], Permissions]) -> Authorizer:
    """Allow by the method's tag; a method with none or several is refused.

    Permissions that may change are given as what returns them at each call (`storage.permission_files.PermissionsFile`); while
    it raises, nobody is allowed.
    """

    def authorize(request: AuthorizationRequest) -> Refusal | None:
        if len(request.tags) != 1:
            return Refusal(f"the method '{request.method}' has {len(request.tags)} tags; permissions want exactly one")
        (tag,) = request.tags
        try:
            current = permissions() if callable(permissions) else permissions
        except VanadiumError:  # its text is for those who run the server
            return Refusal("nobody is allowed, since this server's permissions cannot be read now; its log tells why")
        if current.allow(tag, request.peer.accepted):
            return None
        return Refusal(f"{describe_peer(request.peer)}; none has the right {tag}")

    return authorize


def any_of(*authorizers: Authorizer) -> Authorizer:
    """Allow what one of the authorizers allows."""

    def authorize(request: AuthorizationRequest) -> Refusal | None:
        refusals = []
        for each in authorizers:
            refusal = each(request)
            if refusal is None:
                return None
            refusals.append(refusal.reason)
        return Refusal("; ".join(refusals) or "nobody is allowed")

    return authorize


def all_of(*authorizers: Authorizer) -> Authorizer:
    """Allow what all of the authorizers allow."""

    def authorize(request: AuthorizationRequest) -> Refusal | None:
        return next((refusal for each in authorizers if (refusal := each(request)) is not None), None)

    return authorize


def describe_peer(peer: Validation) -> str:
    """Say which names a peer presented, and why those that do not count were rejected."""
    if not peer.presented:
        return "the peer presented no blessings"
    said = []
    if peer.accepted:
        said.append(f"the peer presented {', '.join(peer.accepted)}")
    if peer.rejected:
        said.append(f"rejected: {'; '.join(map(str, peer.rejected))}")
    return ", and ".join(said)
