"""The client's side of the agent protocol: a principal whose key lives in another process.

Its store and roots are a snapshot, fetched whenever the agent says that something changed. The agent may come later than
its clients, and may be restarted under them: then there is a new key, and new connections use it.
"""

import logging
import os
import random
from pathlib import Path
from typing import Final, TypeVar

import trio

from vanadium_node import cbor
from vanadium_node.agent.state import AgentState
from vanadium_node.errors import CallError, DecodeError, ErrorCode, PeerError, UnreachableError, VanadiumError, clip
from vanadium_node.rpc import Client, connect
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import EVERYBODY, Principal
from vanadium_node.storage.hidden import hidden_path

T = TypeVar("T")

FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 0.25
"""An agent is on the same machine: looking for it costs nothing next to a call that fails because it came back unnoticed."""
CALL_SECONDS: Final = 30.0
ASK_SECONDS: Final = 1.0
"""How long an agent that serves nobody yet may take to say why."""
MAX_WHY: Final = 2000
"""Characters of it."""

_log: Final = logging.getLogger(__name__)


class AgentSigner:
    """Signs by asking the agent."""

    def __init__(self, ask: "Connection", public_key: PublicKey) -> None:
        self._ask = ask
        self.public_key = public_key

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Return the encoded COSE_Sign1 over the payload.

        Raises:
            UnreachableError: the agent is gone and did not come back in time, or came back with another key.
        """
        try:
            return await self._ask.call("Sign", str(kind), payload, external_aad, self.public_key.der, returns=bytes)
        except CallError as error:
            if error.code is ErrorCode.NOT_FOUND:
                raise UnreachableError(
                    f"the agent behind '{self._ask.path}' was restarted and has another key now", hint="try again"
                ) from error
            raise


class Connection:
    """The connection to the agent of the moment; calls made while there is none wait for the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._client: Client | None = None
        self._connected = trio.Event()

    def use(self, client: Client | None) -> None:
        """Take the client of a new connection, or None when it is gone."""
        self._client = client
        if client is not None:
            self._connected.set()
        elif self._connected.is_set():
            self._connected = trio.Event()

    async def call(self, name: str, *arguments: object, returns: type[T]) -> T:
        """Call a method of the agent, once more if the agent was restarted meanwhile.

        Raises:
            UnreachableError: there is no agent, and none came in time.
            CallError: the agent refused.
        """
        with trio.move_on_after(CALL_SECONDS):
            while True:
                await self._connected.wait()
                client = self._client
                if client is None:
                    continue
                try:
                    result: T = await client.call(name, *arguments, returns=returns, timeout=CALL_SECONDS)
                    return result
                except (UnreachableError, PeerError):
                    if self._client is client:
                        self.use(None)
        raise UnreachableError(
            f"the agent behind '{self.path}' did not answer within {CALL_SECONDS:.0f} s", hint="see the pod agent's log"
        )


class AgentPrincipal(Principal):
    """A principal served by an agent. Use `open_principal`."""

    def __init__(self, connection: Connection, state: AgentState) -> None:
        super().__init__(AgentSigner(connection, state.public_key), state.store, state.roots)
        self._connection = connection

    def take(self, state: AgentState) -> None:
        """Take over what the agent serves now, a new key included."""
        self._signer = AgentSigner(self._connection, state.public_key)
        self.store, self.roots = state.store, state.roots

    async def shared_discharge(self, third_party: ThirdParty) -> Discharge | None:
        """Return the discharge that another client of the agent has fetched."""
        caveat = cbor.encode(third_party.to_caveat().to_value())
        found: bytes | None = await self._connection.call("BlessingStoreDischarge", caveat, returns=bytes | None)  # type: ignore[arg-type]
        return None if found is None else Discharge.decode(found)

    async def share_discharge(self, third_party: ThirdParty, discharge: Discharge) -> None:
        """Give a discharge to the agent's other clients."""
        caveat = cbor.encode(third_party.to_caveat().to_value())
        await self._connection.call("BlessingStoreCacheDischarge", caveat, discharge.encoded, returns=type(None))

    async def set_default(self, blessings: Blessings | None) -> None:
        """Choose what to show as a server, at the agent."""
        await self._changing("BlessingStoreSetDefault", blessings, returns=type(None))

    async def set_for_peer(self, blessings: Blessings | None, pattern: Pattern) -> Blessings | None:
        """Choose what to show to servers that match the pattern, at the agent."""
        before = self.store.peers.get(pattern)
        await self._changing("BlessingStoreSet", blessings, pattern.text, returns=Blessings | None)  # type: ignore[arg-type]
        return before

    async def add_root(self, public_key: PublicKey, pattern: Pattern) -> None:
        """Recognize a root, at the agent."""
        await self._changing("BlessingRootsAdd", public_key.der, pattern.text, returns=type(None))

    async def add_roots_of(self, blessings: Blessings) -> None:
        """Recognize the roots of blessings, at the agent: all or none."""
        await self._changing("BlessingRootsAddOf", blessings, returns=type(None))

    async def adopt(self, blessings: Blessings, *, peers: Pattern | None = EVERYBODY, is_default: bool = True) -> None:
        """Show these blessings, and recognize their roots, at the agent: all or nothing."""
        text = None if peers is None else peers.text
        await self._changing("Adopt", blessings, text, is_default, returns=type(None))

    async def _changing(self, name: str, *arguments: object, returns: type[T]) -> None:
        await self._connection.call(name, *arguments, returns=returns)
        self.take(AgentState.decode(await self._connection.call("State", returns=bytes)))


class Follower:
    """Keeps a principal in step with its agent."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = Connection(path)
        self.principal: AgentPrincipal | None = None
        self.why_not = ""
        """Why the agent serves no principal, in its own words; empty where it does, or says nothing."""

    async def run(self, *, task_status: trio.TaskStatus[AgentPrincipal] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the agent until cancelled; report the principal as soon as there is one.

        Raises:
            CallError: the agent does not serve this user.
        """
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                async with (
                    connect(f"unix:{self._path}", None) as client,
                    client.stream("NotifyWhenChanged", returns=int) as changes,
                ):
                    async for _ in changes:
                        state = AgentState.decode(await client.call("State", returns=bytes))
                        self._take(state, client, task_status)
                        delay = FIRST_RETRY_SECONDS
            except (UnreachableError, PeerError, CallError, DecodeError) as error:
                # nobody there yet, or restarted: what to do is the same, and callers get their own errors
                if self.principal is None and isinstance(error, CallError) and error.code is ErrorCode.NO_ACCESS:
                    raise
                if self.principal is None:
                    await self._ask_why(error)
            finally:
                self._connection.use(None)
            await trio.sleep(delay * random.uniform(0.5, 1))  # noqa: S311 - spreads load, hides nothing
            delay = min(delay * 2, LAST_RETRY_SECONDS)

    async def _ask_why(self, error: VanadiumError) -> None:
        """Find out why there is no principal yet: an agent that does not show its socket tells what it waits for.

        What is more than waiting for one's turn is said once.
        """
        if not isinstance(error, UnreachableError):
            self._say(str(error))  # something answers, and it is no agent
            return
        if isinstance(error.__cause__, PermissionError):
            self._say(
                f"user {os.geteuid()} may not open it, or not enter its directory; "
                "see its group (in a pod, the fsGroup) and the agent's setting socket-mode"
            )
            return
        try:
            async with connect(f"unix:{hidden_path(self._path)}", None, timeout=ASK_SECONDS) as client:
                reasons = await client.call("WhyNotReady", returns=list[str], timeout=ASK_SECONDS)
        except VanadiumError:  # there is none, or it is older than the question
            return
        self._say("; ".join(reasons), is_worth_a_line=len(reasons) > 1)

    def _say(self, why: str, *, is_worth_a_line: bool = True) -> None:
        """Keep why there is no principal yet, and log it if it is the first reason."""
        known, self.why_not = self.why_not, clip(why, MAX_WHY)
        if is_worth_a_line and not known:
            _log.warning("the agent behind '%s' does not serve this program yet: %s", self._path, self.why_not)

    def _take(self, state: AgentState, client: Client, task_status: trio.TaskStatus[AgentPrincipal]) -> None:
        self._connection.use(client)
        if self.principal is None:
            self.principal = AgentPrincipal(self._connection, state)
            task_status.started(self.principal)
        else:
            self.principal.take(state)
