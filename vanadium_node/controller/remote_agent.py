"""The cluster agent over RPC: who it is is checked before anything is shown or asked, and secrets only pass through."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeVar

from vanadium_node.controller.endpoint import find_cluster_agent
from vanadium_node.controller.identity import named, own_blessings
from vanadium_node.controller.site import Site
from vanadium_node.errors import CallError, ErrorCode, InputError, NotTrustedError, VanadiumError
from vanadium_node.rpc import Client, connect
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.principal import Principal

T = TypeVar("T")
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

    async def new_secret(self, extension: str) -> str:
        """Grant the caller's blessings, extended by `extension`, and return the secret that stands for them.

        Raises:
            VanadiumError: the agent is not there, not who it should be, or refused.
        """

        async def ask(client: Client, principal: Principal) -> str:
            base = own_blessings(principal, self.base_blessings)
            granted = await _grant(principal, base, extension, client)
            secret: str = await client.call("NewSecret", returns=str, granted=granted)
            return secret

        return await self._asked(ask)

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

    async def claim(self) -> str:
        """Give an unclaimed agent its blessing of the settings, and return that.

        Raises:
            InputError: the caller does not hold the name to extend, or the agent is claimed already.
            VanadiumError: the agent is not there, or refused.
        """
        settings = self.site.settings.cluster_agent

        async def ask(client: Client, principal: Principal) -> None:
            if settings.blessing in client.server.names:
                raise _already_claimed(settings.blessing)
            base = named(own_blessings(principal), settings.granter)
            granted = await _grant(principal, base, settings.extension, client)
            try:
                await client.call("Claim", "", returns=None, granted=granted)
            except CallError as error:
                if error.code in {ErrorCode.EXISTS, ErrorCode.UNKNOWN_METHOD}:
                    raise _already_claimed(settings.blessing) from error
                raise

        await self._asked(ask, is_unclaimed=True)
        return settings.blessing

    async def _asked(self, ask: Callable[[Client, Principal], Awaitable[T]], *, is_unclaimed: bool = False) -> T:
        """Connect, ask, and return the answer. Only an agent that is to be claimed need not prove its name."""
        settings = self.site.settings.cluster_agent
        endpoint = self.address or await find_cluster_agent(
            self.site.client, settings.namespace, report=self.site.report
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


def _already_claimed(blessing: str) -> InputError:
    return InputError(
        f"the cluster agent is already claimed (it should be '{blessing}')",
        hint="if it is not yours, stop it, remove its disk, and start it again",
    )
