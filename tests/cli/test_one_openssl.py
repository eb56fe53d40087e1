"""What runs in every pod does without the system's OpenSSL, and whoever needs it after all still gets it."""

import subprocess
import sys

LIBRARIES = "sorted({line.split('/')[-1].split('.')[0] for line in open('/proc/self/maps') if 'lib' in line})"


def run(program: str) -> str:
    """Return what a Python program prints."""
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_the_pod_agent_loads_no_second_openssl() -> None:
    """Neither by trio nor by hashing; the same SHA-256 comes out."""
    loaded = run(
        "from vanadium_node.cli.app import load; load('pod-agent'); import hashlib\n"
        f"print(hashlib.sha256(b'x').hexdigest(), {LIBRARIES})"
    )
    assert "libcrypto" not in loaded
    assert "libssl" not in loaded
    assert loaded.startswith("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")


def test_ssl_is_there_when_it_is_used() -> None:
    """The stand-in becomes the real module, also for those who imported it before."""
    printed = run(
        "from vanadium_node.cli.one_openssl import avoid_second_openssl as avoid; avoid()\n"
        "import ssl; early = ssl; from ssl import SSLContext; import ssl\n"
        "print(early.SSLContext is SSLContext is ssl.SSLContext, ssl.create_default_context().verify_mode.name)"
    )
    assert printed == "True CERT_REQUIRED\n"


def test_a_process_that_has_it_keeps_it() -> None:
    """Nothing is taken away from code that runs already."""
    printed = run(
        "import hashlib, ssl, sys; from vanadium_node.cli.one_openssl import avoid_second_openssl as avoid; avoid()\n"
        "print(sys.modules['ssl'] is ssl, sys.modules['_hashlib'] is not None)"
    )
    assert printed == "True True\n"
