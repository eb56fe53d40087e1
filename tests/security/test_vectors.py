"""The golden vectors: every fact of the good ones, the refusal of the bad ones, and an independent library's opinion."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from vanadium_node import cbor
from vanadium_node.errors import DecodeError
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.keys import PublicKey

VECTORS = Path(__file__).parent.parent / "vectors"
LIMIT = 1 << 20

Entry = dict[str, Any]


def entries(name: str, kind: str) -> list[Entry]:
    """Return the good or bad vectors of a file."""
    found: list[Entry] = json.loads((VECTORS / name).read_text())[kind]
    return found


def title(entry: Entry) -> str:
    """Name a vector in the test's id."""
    return str(entry.get("why") or entry.get("name") or entry.get("text"))


@pytest.mark.parametrize("entry", entries("keys.json", "good"), ids=title)
def test_keys(entry: Entry) -> None:
    """Bytes, text and fingerprint belong together."""
    key = PublicKey.decode(bytes.fromhex(entry["der"]))
    assert (key.text, key.fingerprint) == (entry["text"], entry["fingerprint"])
    assert PublicKey.parse(entry["text"]) == key


@pytest.mark.parametrize("entry", entries("keys.json", "bad"), ids=title)
def test_what_is_no_key(entry: Entry) -> None:
    """Refused when it is read."""
    with pytest.raises(DecodeError):
        PublicKey.decode(bytes.fromhex(entry["der"]))


@pytest.mark.parametrize("entry", entries("caveats.json", "good"), ids=title)
def test_caveats(entry: Entry) -> None:
    """Bytes, id and words belong together."""
    data = bytes.fromhex(entry["cbor"])
    caveat = Caveat.decode(cbor.decode(data, max_bytes=LIMIT))
    assert (caveat.id, str(caveat)) == (entry["id"], entry["text"])
    assert cbor.encode(caveat.to_value()) == data


@pytest.mark.parametrize("entry", entries("caveats.json", "bad"), ids=title)
def test_what_is_no_caveat(entry: Entry) -> None:
    """Refused when it is read, though it is canonical CBOR."""
    value = cbor.decode(bytes.fromhex(entry["cbor"]), max_bytes=LIMIT)
    with pytest.raises(DecodeError):
        Caveat.decode(value)


@pytest.mark.parametrize("entry", entries("blessings.json", "good"), ids=title)
def test_blessings(entry: Entry) -> None:
    """Names, keys, caveats and digests are as told, and the encoding comes back."""
    data = bytes.fromhex(entry["cbor"])
    blessings = Blessings.decode(data)
    assert blessings.encode() == data
    assert blessings.public_key.der.hex() == entry["public_key"]
    assert blessings.digest.hex() == entry["digest"]
    assert blessings.names == tuple(chain["name"] for chain in entry["chains"])
    for chain, expected in zip(blessings.chains, entry["chains"], strict=True):
        assert chain.digest.hex() == expected["digest"]
        for certificate, facts in zip(chain.certificates, expected["certificates"], strict=True):
            assert certificate.encoded.hex() == facts["cose"]
            assert certificate.extension == facts["extension"]
            assert [str(caveat) for caveat in certificate.caveats] == facts["caveats"]


@pytest.mark.parametrize("entry", entries("blessings.json", "bad"), ids=title)
def test_what_is_no_blessing(entry: Entry) -> None:
    """Refused when it is read, whatever is wrong with it."""
    with pytest.raises(DecodeError):
        Blessings.decode(bytes.fromhex(entry["cbor"]))


def test_a_discharge() -> None:
    """It is for its caveat, and says what it says."""
    (entry,) = entries("discharges.json", "good")
    caveat = Caveat.decode(cbor.decode(bytes.fromhex(entry["caveat"]), max_bytes=LIMIT))
    third_party = ThirdParty.from_caveat(caveat)
    word = Discharge.decode(bytes.fromhex(entry["cose"]))
    assert third_party.id.hex() == entry["caveat_id"]
    assert third_party.to_caveat() == caveat
    assert word.is_for(third_party)
    assert [str(caveat) for caveat in word.caveats] == entry["caveats"]


@pytest.mark.parametrize("entry", entries("discharges.json", "bad"), ids=title)
def test_what_is_no_discharge(entry: Entry) -> None:
    """It cannot be read, or is not for the caveat."""
    (good,) = entries("discharges.json", "good")
    third_party = ThirdParty.from_caveat(Caveat.decode(cbor.decode(bytes.fromhex(good["caveat"]), max_bytes=LIMIT)))
    try:
        word = Discharge.decode(bytes.fromhex(entry["cose"]))
    except DecodeError:
        return
    assert not word.is_for(third_party)


def test_the_vectors_are_what_the_code_writes(tmp_path: Path) -> None:
    """Encoding, too, has not changed: the same keys and facts give the same bytes."""
    subprocess.run([sys.executable, VECTORS / "make_vectors.py", tmp_path], check=True, timeout=60)
    for file in VECTORS.glob("*.json"):
        assert (tmp_path / file.name).read_text() == file.read_text(), file.name


@pytest.fixture(scope="module")
def python_with_cwt(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of an environment with cwt: the one in VANADIUM_TEST_CWT_PYTHON, or one made for this run.

    cwt pins an older cbor2 than this project needs, so that it cannot be in the test extra.
    """
    given = os.environ.get("VANADIUM_TEST_CWT_PYTHON")
    if given:
        return given
    directory = tmp_path_factory.mktemp("cwt")
    venv.create(directory, with_pip=True, symlinks=True)
    python = str(directory / "bin" / "python")
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=0", "cwt>=3,<4"],
        check=False,
        capture_output=True,
        timeout=120,
    )
    if installed.returncode:
        pytest.skip("no package index to install cwt from, and VANADIUM_TEST_CWT_PYTHON names no Python that has it")
    return python


def test_an_independent_library_finds_the_signatures_good(python_with_cwt: str) -> None:
    """cwt verifies each certificate and discharge with nothing but RFC 9052, and refuses them under other external data."""
    script = Path(__file__).parent.parent / "support" / "check_with_cwt.py"
    done = subprocess.run([python_with_cwt, script, VECTORS], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    assert int(done.stdout) == 14
