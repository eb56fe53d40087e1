"""One attempt to get blessings: from the right cluster agent, with the secret of a file, and what came is looked at."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from agent_parties import bless, blessed, default_of, new_root
from pods import Giver, Pod, utc_now

from vanadium_node.errors import NotTrustedError, StorageError
from vanadium_node.pod_agent.seeking import read_secret, seek_blessings
from vanadium_node.rpc import serve
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.discharge import ThirdParty
from vanadium_node.security.principal import Principal


async def test_what_is_of_no_use_is_not_taken(pod: Pod) -> None:
    """Blessings of another key, of another root, or already expired are named and refused."""
    replica = Principal((await new_root()).signer, roots=pod.root.roots)
    stranger = await new_root("stranger")
    expired = Caveat.expiry(utc_now() - timedelta(hours=1))
    async with pod.giving():
        for given, reason in (
            (default_of(stranger), "bound to another key"),
            (await bless(stranger, replica, "x"), "root .* is not recognized"),
            (await bless(pod.root, replica, "x", expired), "expired at .*and the clocks"),
            (await bless(pod.root, replica, "x", Caveat.const(False)), "never valid"),
        ):
            pod.giver.instead = given
            with pytest.raises(NotTrustedError, match=reason):
                await seek_blessings(pod.name, pod.settings.secret_key_file, replica, utc_now)
        pod.giver.instead = await bless(pod.root, replica, "x", Caveat.method("Get"))
        assert await seek_blessings(pod.name, pod.settings.secret_key_file, replica, utc_now) == pod.giver.instead


async def test_the_secret_is_shown_to_the_right_cluster_agent_only(pod: Pod) -> None:
    """One that presents another name, or another root, is not asked."""
    impostor = Giver(await blessed(await new_root(), "agent"))
    async with serve(impostor, impostor.principal, listen=["127.0.0.1:0"]) as server, pod.giving():
        replica = Principal((await new_root()).signer, roots=pod.root.roots)
        for name in (f"/(root:agent)@{server.addresses[0]}", pod.name.replace("root:agent", "root:other")):
            with pytest.raises(NotTrustedError, match=r"root:(agent|other)"):
                await seek_blessings(name, pod.settings.secret_key_file, replica, utc_now)
    assert impostor.secrets == pod.giver.secrets == []


async def test_what_a_discharger_refuses_keeps_no_replica_from_its_blessings(pod: Pod) -> None:
    """The secret is what counts here: new blessings come also while those shown cannot be used."""
    async with serve({}, pod.root, listen=["127.0.0.1:0"]) as without_dischargers, pod.giving():
        places = [without_dischargers.addresses[0], "127.0.0.1:1"]
        for place in places:
            caveat = ThirdParty(
                nonce=bytes(16), discharger_key=pod.root.public_key, location=f"/{place}", caveats=()
            ).to_caveat()
            replica = Principal((await new_root()).signer)
            await replica.adopt(await bless(pod.root, replica, "x", caveat))
            with trio.fail_after(5):
                got = await seek_blessings(pod.name, pod.settings.secret_key_file, replica, utc_now)
            assert got.public_key == replica.public_key
            assert pod.giver.presented[-1] == ("root:x",)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 5000])
def test_files_that_hold_no_secret(tmp_path: Path, content: bytes) -> None:
    """The file is named, and nothing of it is in the sentence."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(StorageError, match=str(file)) as refused:
        read_secret(file)
    assert "xxx" not in str(refused.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe is refused instead of waited for, and with it everything else of the agent; so is a directory."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match=r"'.*/pipe' is a pipe.*read again at each renewal"):
        read_secret(tmp_path / "pipe")
    with pytest.raises(StorageError, match="is a directory; name a file"):
        read_secret(tmp_path)


def test_a_secret_is_replaced_as_kubernetes_does_it(tmp_path: Path) -> None:
    """By a link to a link, which leads elsewhere from one moment to the next."""
    (tmp_path / "secret").symlink_to("..data/secret")
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        (tmp_path / number / "secret").write_text(f"secret-{number}\n")
        (tmp_path / "..new").symlink_to(number)
        (tmp_path / "..new").rename(tmp_path / "..data")
        assert read_secret(tmp_path / "secret") == f"secret-{number}"
