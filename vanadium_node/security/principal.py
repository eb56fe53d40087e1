"""A principal: a key, the blessings it holds, and the roots it recognizes.

What it holds are immutable snapshots; a change replaces them, after whoever keeps them (a directory, an agent) has stored
them. It never suspends but for its signer and its keeper.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from vanadium_node.errors import InputError
from vanadium_node.security.blessing import Blessings, Chain, ChainCache
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.certificate import Certificate, chain_digest
from vanadium_node.security.cose import LocalSigner, SignatureType, Signer
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.discharge_cache import DischargeCache
from vanadium_node.security.keys import PrivateKey, PublicKey
from vanadium_node.security.pattern import ALL, Pattern
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.store import BlessingStore

Change = Callable[[BlessingStore, BlessingRoots], tuple[BlessingStore, BlessingRoots]]
"""What a change makes of a principal's store and roots."""


EVERYBODY: Final = Pattern.parse(ALL)
"""Peers of any name, or none."""


class Keeper(Protocol):
    """Keeps a principal's store and roots beyond the process, where others may change them too."""

    def read(self) -> tuple[BlessingStore, BlessingRoots]:
        """Return what is kept now."""

    async def update(self, change: Change) -> tuple[BlessingStore, BlessingRoots]:
        """Apply a change to what is kept now, keep the result and return it; or raise, and leave it as it was."""


class Principal:
    """A key pair with a blessing store and blessing roots. Every call is made as one, by both sides."""

    def __init__(
        self,
        signer: Signer,
        store: BlessingStore | None = None,
        roots: BlessingRoots | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._signer = signer
        self._keeper = keeper
        self.store = BlessingStore() if store is None else store
        self.roots = BlessingRoots() if roots is None else roots
        self.discharges = DischargeCache()
        """Discharges that were fetched for its blessings."""
        self.chains = ChainCache()
        """Chains of peers that were verified on its behalf."""

    @classmethod
    async def create(cls, signer: Signer | PrivateKey, name: str) -> "Principal":
        """Make a principal that blesses itself as `name`, shows that to everybody, and recognizes itself as the root.

        Raises:
            InputError: the name is not allowed.
        """
        principal = cls(LocalSigner(signer) if isinstance(signer, PrivateKey) else signer)
        own = await principal.bless_self(name)
        principal.store = BlessingStore().with_default(own).with_peer(EVERYBODY, own)
        principal.roots = BlessingRoots().with_roots_of(own)
        return principal

    @property
    def signer(self) -> Signer:
        """Whoever signs with the principal's key."""
        return self._signer

    @property
    def signs_at_once(self) -> bool:
        """Whether the key is here, and signing waits for nobody."""
        return isinstance(self._signer, LocalSigner)

    @property
    def public_key(self) -> PublicKey:
        """The public half of the key."""
        return self._signer.public_key

    def blessings_for_peer(self, names: Iterable[str]) -> Blessings | None:
        """Return what to show to a server with these names."""
        return self.store.for_peer(names)

    async def bless(
        self, public_key: PublicKey, blessings: Blessings, extension: str, caveats: Sequence[Caveat]
    ) -> Blessings:
        """Extend own blessings to another key.

        Raises:
            InputError: the blessings are not this principal's, there is no caveat, or the extension is not allowed.
        """
        self._require_own(blessings)
        if not caveats:
            raise InputError("blessing without any caveat", hint="say so with Caveat.unconstrained() if it is meant")
        chains = [await c.extended(self._signer, extension, public_key, tuple(caveats)) for c in blessings.chains]
        return Blessings.from_chains(chains)

    async def bless_self(self, name: str, caveats: Sequence[Caveat] = ()) -> Blessings:
        """Return blessings of one certificate, rooted at this principal's own key.

        Raises:
            InputError: the name is not allowed.
        """
        certificate = await Certificate.sign(self._signer, name, self.public_key, tuple(caveats), b"")
        return Blessings.from_chains([Chain((certificate,), chain_digest(b"", certificate.encoded))])

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Return the encoded COSE_Sign1 over the payload."""
        return await self._signer.sign(kind, payload, external_aad)

    async def mint_discharge(self, caveat: Caveat, caveats: Sequence[Caveat]) -> Discharge:
        """Sign a discharge of a third-party caveat that names this principal's key.

        Raises:
            InputError: it is no third-party caveat, or names another key.
        """
        return await Discharge.mint(self._signer, caveat, tuple(caveats))

    async def shared_discharge(self, third_party: ThirdParty) -> Discharge | None:
        """Return a discharge that another process with this principal has fetched; None where there is none to ask."""
        return None

    async def share_discharge(self, third_party: ThirdParty, discharge: Discharge) -> None:
        """Give a fetched discharge to other processes with this principal, where there is a way."""

    async def set_default(self, blessings: Blessings | None) -> None:
        """Choose what to show as a server; None: nothing.

        Raises:
            InputError: the blessings are another principal's.
        """
        self._require_own(blessings)
        await self._change(lambda store, roots: (store.with_default(blessings), roots))

    async def set_for_peer(self, blessings: Blessings | None, pattern: Pattern) -> Blessings | None:
        """Choose what to show to servers that match the pattern (None: nothing), and return what it was before.

        Raises:
            InputError: the blessings are another principal's.
        """
        self._require_own(blessings)
        before: list[Blessings | None] = []

        def change(store: BlessingStore, roots: BlessingRoots) -> tuple[BlessingStore, BlessingRoots]:
            before.append(store.peers.get(pattern))
            return store.with_peer(pattern, blessings), roots

        await self._change(change)
        return before[-1]

    async def add_root(self, public_key: PublicKey, pattern: Pattern) -> None:
        """Recognize a key as the root of names that match the pattern.

        Raises:
            InputError: the pattern matches everything, or nothing.
        """
        await self._change(lambda store, roots: (store, roots.with_root(public_key, pattern)))

    async def add_roots_of(self, blessings: Blessings) -> None:
        """Recognize the root of each chain for the name it gives itself."""
        await self._change(lambda store, roots: (store, roots.with_roots_of(blessings)))

    async def adopt(self, blessings: Blessings, *, peers: Pattern | None = EVERYBODY, is_default: bool = True) -> None:
        """Show these blessings to servers that match `peers` and, as a server, to all; recognize their roots: all or nothing.

        Raises:
            InputError: the blessings are another principal's.
        """
        self._require_own(blessings)

        def change(store: BlessingStore, roots: BlessingRoots) -> tuple[BlessingStore, BlessingRoots]:
            if is_default:
                store = store.with_default(blessings)
            if peers is not None:
                store = store.with_peer(peers, blessings)
            return store, roots.with_roots_of(blessings)

        await self._change(change)

    def reread(self) -> None:
        """Take over what is kept now: others may have changed it.

        Raises:
            StorageError: it cannot be read; what is held stays.
        """
        if self._keeper is not None:
            self.store, self.roots = self._keeper.read()

    async def _change(self, change: Change) -> None:
        if self._keeper is None:
            self.store, self.roots = change(self.store, self.roots)
        else:
            self.store, self.roots = await self._keeper.update(change)

    def _require_own(self, blessings: Blessings | None) -> None:
        if blessings is not None and blessings.public_key != self.public_key:
            raise InputError(
                f"the blessings {blessings} are bound to the key {blessings.public_key}, "
                f"not to this principal's, {self.public_key}"
            )
