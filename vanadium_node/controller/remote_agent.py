"""The cluster agent over RPC: who it is is checked before anything is shown or asked, and secrets only pass through."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from vanadium_node.controller.endpoint import ADDRESS_PATIENCE, find_cluster_agent
from vanadium_node.controller.identity import named, own_blessings
from vanadium_node.controller.site import Site
from vanadium_node.errors import CallError, ErrorCode, InputError, NotTrustedError, UnreachableError, VanadiumError
from vanadium_node.rpc import Client, connect
from vanadium_node.secret_store import KnownSecret
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.principal import Principal

T = TypeVar("T")
CLAIM_TRIES: Final = 3
OpenPrincipal = Callable[[], AbstractAsyncContextManager[Principal]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteClusterAgent:
    """The cluster agent of a site, called as the principal that `open_principal` gives, each time over a new connection.

    A rollout may lie between two calls, and the agent's address may need waiting for: nothing is opened before it is needed.
    `address` (HOST:PORT) replaces the Service's; `base_blessings` (text form) the principal's default blessings.
    """

    site: Site
    open_principal: OpenPrincipal
    address: str | None = None
    base_blessings: str | None = None
    patience: timedelta = ADDRESS_PATIENCE
    """How long to wait for the address of a load balancer."""

    async def new_secret(self, extension: str, secret: str) -> None:
        """Let the secret, of the caller's making, stand for the caller's blessings extended by `extension`.

        Raises:
            VanadiumError: the agent is not there, not who it should be, or refused.
        """

        async def ask(client: Client, principal: Principal) -> None:
            base = own_blessings(principal, self.base_blessings)
            granted = await _grant(principal, base, extension, client)
            await client.call("NewSecret", 0, secret, returns=str, granted=granted)

        await self._asked(ask)

    async def forget_secret(self, secret: str) -> None:
        """Make the secret worthless; one that is unknown is no error."""

        async def ask(client: Client, _: Principal) -> None:
            await client.call("ForgetSecret", secret, returns=None)

        await self._asked(ask)

    async def check(self) -> None:
        """Make sure that the agent is there, claimed, and who it should be."""

        async def ask(client: Client, _: Principal) -> None:
            pass

        await self._asked(ask)

    async def secrets(self) -> Mapping[bytes, KnownSecret]:
        """Return what the agent knows about each of its secrets, by their hashes.

        Raises:
            VanadiumError: the agent is not there, not claimed, not who it should be, or does not tell the caller.
        """

        async def ask(client: Client, _: Principal) -> Mapping[bytes, KnownSecret]:
            async with client.stream("ListSecrets", returns=KnownSecret, result=None) as found:
                return {known.key: known async for known in found}

        return await self._asked(ask)

    async def claim(self, *, fingerprint: str | None = None, token: str = "") -> str:
        """Give an unclaimed agent its blessing of the settings, and return that.

        `fingerprint` is that of the key the agent must have, as its log says it: an address proves nothing. `token` is the
        pairing token it was started with. When the connection is lost before the answer, the same claim is made again.

        Raises:
            InputError: the caller does not hold the name to extend, or the agent is claimed already.
            NotTrustedError: whoever answers has another key.
            VanadiumError: the agent is not there, or refused.
        """
        settings = self.site.settings.cluster_agent
        granted: Blessings | None = None

        async def ask(client: Client, principal: Principal) -> None:
            nonlocal granted
            _check_fingerprint(client, fingerprint)
            if granted is None or granted.public_key != client.server.public_key:
                if settings.blessing in client.server.names:
                    raise _already_claimed(settings.blessing)
                granted = await _grant(
                    principal, named(own_blessings(principal), settings.granter), settings.extension, client
                )
            try:
                await client.call("Claim", token, returns=None, granted=granted)
            except CallError as error:
                if error.code in {ErrorCode.EXISTS, ErrorCode.UNKNOWN_METHOD}:
                    raise _already_claimed(settings.blessing) from error
                raise

        for _ in range(CLAIM_TRIES - 1):
            try:
                await self._asked(ask, is_unclaimed=True)
            except UnreachableError:
                if granted is None:
                    raise
            else:
                return settings.blessing
        await self._asked(ask, is_unclaimed=True)
        return settings.blessing

    async def _asked(self, ask: Callable[[Client, Principal], Awaitable[T]], *, is_unclaimed: bool = False) -> T:
        """Connect, ask, and return the answer. Only an agent that is to be claimed need not prove its name."""
        settings = self.site.settings.cluster_agent
        endpoint = self.address or await find_cluster_agent(
            self.site.client, settings.namespace, report=self.site.report, patience=self.patience
        )
        name = f"/{endpoint}" if is_unclaimed else f"/({settings.blessing})@{endpoint}"
        outcome: T | VanadiumError
        async with self.open_principal() as principal:  # it may hold a nursery, which would wrap what passes through it
            try:
                async with connect(name, principal, insecure=is_unclaimed) as client:
                    outcome = await ask(client, principal)
            except VanadiumError as error:
                outcome = error
        if isinstance(outcome, NotTrustedError) and not is_unclaimed:
            raise NotTrustedError(
                outcome.message,
                hint="if it is new, claim it with 'claim-cluster-agent'; if not, "
                "check 'clusterAgent.blessing' in the configuration and your credentials",
            ) from outcome
        if isinstance(outcome, VanadiumError):
            raise outcome
        return outcome


async def _grant(principal: Principal, base: Blessings, extension: str, client: Client) -> Blessings:
    key = client.server.public_key
    if key is None:
        raise NotTrustedError("the cluster agent showed no key to bless")
    return await principal.bless(key, base, extension, [Caveat.unconstrained()])


def _check_fingerprint(client: Client, expected: str | None) -> None:
    """Make sure that the server has the key with that fingerprint, which may be written with or without colons."""
    shown = "no key" if client.server.public_key is None else client.server.public_key.fingerprint
    if expected is not None and shown.replace(":", "") != expected.replace(":", "").strip().lower():
        raise NotTrustedError(
            f"who answers at the cluster agent's address has the key {shown}, not the one expected",
            hint="compare it with the fingerprint that the cluster agent's log says; claim nothing until they agree",
        )


def _already_claimed(blessing: str) -> InputError:
    return InputError(
        f"the cluster agent is already claimed (it should be '{blessing}')",
        hint="if it is not yours, stop it, remove its disk, and start it again",
    )
