"""Ownership on disk: unclaimed or wholly claimed, whatever happens in between."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from agent_parties import bless, default_of, new_root

from vanadium_node.claim import Ownership, open_ownership
from vanadium_node.claim.ownership import PERMISSIONS_FILE, UNCLAIMED
from vanadium_node.errors import InputError, StorageError
from vanadium_node.security.access import Permissions

PERMISSIONS = Permissions.of(Admin=["root:admin"])


async def test_a_claim_is_there_after_a_restart(tmp_path: Path) -> None:
    """The key stays, and the blessings, the permissions and the recognized root are found again."""
    root = await new_root()
    before = await open_ownership(tmp_path / "d", [default_of(root)])
    key = before.principal.public_key
    assert not before.is_claimed
    assert default_of(before.principal).names == (UNCLAIMED,)
    granted = await bless(root, before.principal, "agent")
    await before.claim(granted, PERMISSIONS)
    for ownership in (before, await open_ownership(tmp_path / "d", [])):
        assert ownership.is_claimed
        assert ownership.principal.public_key == key
        assert default_of(ownership.principal) == granted
        assert ownership.permissions == PERMISSIONS
        assert ownership.principal.roots.recognizes(root.public_key, "root:anybody")
        assert not ownership.principal.roots.recognizes(key, UNCLAIMED)


async def test_an_unclaimed_server_keeps_its_key(tmp_path: Path) -> None:
    """A restart before the claim changes nothing for a claimer who looked at the key."""
    first = await open_ownership(tmp_path / "d", [])
    second = await open_ownership(tmp_path / "d", [])
    assert first.principal.public_key == second.principal.public_key
    assert not second.is_claimed


async def test_roots_it_was_told_of_are_recognized_beyond_the_claim(tmp_path: Path) -> None:
    """An administrator may have another root than the claimer."""
    root, other = await new_root(), await new_root("other")
    ownership = await open_ownership(tmp_path / "d", [default_of(root), default_of(other)])
    await ownership.claim(await bless(root, ownership.principal, "agent"), PERMISSIONS)
    assert ownership.principal.roots.recognizes(other.public_key, "other:admin")


async def test_nobody_claims_what_has_an_owner(tmp_path: Path) -> None:
    """A second claim, and one of a server with permissions of its own, changes nothing."""
    root = await new_root()
    ownership = await open_ownership(tmp_path / "d", [])
    granted = await bless(root, ownership.principal, "agent")
    await ownership.claim(granted, PERMISSIONS)
    given = Ownership.given(root, PERMISSIONS)
    for owned in (ownership, given):
        with pytest.raises(InputError, match="already claimed"):
            await owned.claim(granted, Permissions.of(Admin=["thief"]))
        assert owned.permissions == PERMISSIONS


async def test_blessings_of_another_key_do_not_claim(tmp_path: Path) -> None:
    """The server stays unclaimed, on disk too."""
    root = await new_root()
    ownership = await open_ownership(tmp_path / "d", [])
    with pytest.raises(InputError, match="bound to the key"):
        await ownership.claim(await bless(root, await new_root(), "agent"), PERMISSIONS)
    assert not ownership.is_claimed
    assert not (await open_ownership(tmp_path / "d", [])).is_claimed


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", None])
async def test_damaged_permissions_are_named_and_admit_nobody(tmp_path: Path, damage: bytes | None) -> None:
    """A claimed server without readable permissions does not start, rather than with none or all rights."""
    root = await new_root()
    ownership = await open_ownership(tmp_path / "d", [])
    await ownership.claim(await bless(root, ownership.principal, "agent"), PERMISSIONS)
    file = tmp_path / "d" / PERMISSIONS_FILE
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    with pytest.raises(StorageError, match=str(file)):
        await open_ownership(tmp_path / "d", [])


def test_a_claim_is_whole_or_not_made_at_whatever_change_it_dies(tmp_path: Path) -> None:
    """A process killed before any one change of the file system leaves a server that is claimed, or that can be."""
    script = Path(__file__).parents[1] / "support" / "claim_crash.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    states = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(states) > 8, "the script counts the changes of a claim"
    for state in states:
        if state["is_claimed"]:
            assert state["names"] == ["root:agent"]
            assert json.loads(state["permissions"])["Admin"]["In"] == ["root"]
        else:
            assert state["names"] == [UNCLAIMED]
            assert state["can_be_claimed"]
    assert not states[0]["is_claimed"]
    assert states[-1]["is_claimed"]
