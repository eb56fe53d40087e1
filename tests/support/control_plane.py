"""A real Kubernetes control plane for tests, from the programs in KUBEBUILDER_ASSETS, as envtest has them.

etcd, kube-apiserver and, where it is there, kube-controller-manager on 127.0.0.1, with the smallest set of certificates: the API
server makes its own, and users are tokens. There is no node: pods stay Pending unless a test says otherwise.
"""

import base64
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

READY_SECONDS = 180.0


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while the block lasts; kill it then, since nothing it keeps is needed."""
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL) as child,
    ):
        try:
            yield child
        finally:
            child.kill()


@dataclass(frozen=True)
class ControlPlane:
    """A running API server, and the file that opens it."""

    kubeconfig: Path
    server: str
    token: str
    ca: bytes


def write_service_account_key(folder: Path) -> tuple[Path, Path]:
    """Write the key pair that signs and checks service accounts' tokens."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = folder / "sa.key", folder / "sa.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def kubeconfig_of(server: str, ca: bytes, user: Mapping[str, Any]) -> str:
    """Return the text of a kubeconfig file with one context."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": dict(user)}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
    )


def wait_until_ready(server: str, ca: Path, token: str, child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the API server, and for the namespace and roles that it makes for itself."""
    import ssl

    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise RuntimeError(f"kube-apiserver ended:\n{log.read_text(errors='replace')[-2000:]}")
        try:
            if ca.exists():
                headers = {"Authorization": f"Bearer {token}"}
                with httpx.Client(verify=ssl.create_default_context(cafile=str(ca)), trust_env=False) as client:
                    if client.get(f"{server}/readyz", headers=headers).status_code == 200:
                        return
        except (httpx.HTTPError, ssl.SSLError):
            pass  # not yet
        time.sleep(0.1)
    raise RuntimeError(f"kube-apiserver was not ready in time:\n{log.read_text(errors='replace')[-2000:]}")


def without_insecure_port(controller_manager: Path) -> list[str]:
    """Return the flag that old versions need to leave their second, fixed port alone: two of them may run at once."""
    usage = subprocess.run([controller_manager, "--help"], capture_output=True, text=True, check=True).stdout
    return ["--port=0"] if " --port int " in usage else []


@contextmanager
def running_control_plane(assets: Path, folder: Path) -> Iterator[ControlPlane]:
    """Run a control plane while the block lasts; everything it writes is in `folder`."""
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    etcd, peer = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    private, public = write_service_account_key(folder)
    token = secrets.token_urlsafe(24)
    (folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    server, ca = f"https://127.0.0.1:{port}", folder / "apiserver.crt"
    with ExitStack() as stack:
        stack.enter_context(
            process(
                folder / "etcd.log",
                str(assets / "etcd"),
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync",
            )
        )
        apiserver = stack.enter_context(
            process(
                folder / "apiserver.log",
                str(assets / "kube-apiserver"),
                f"--etcd-servers={etcd}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--service-cluster-ip-range=127.96.0.0/16",
                "--authorization-mode=RBAC",
                f"--token-auth-file={folder / 'tokens.csv'}",
                f"--cert-dir={folder}",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-signing-key-file={private}",
                f"--service-account-key-file={public}",
                "--profiling=false",
            )
        )
        wait_until_ready(server, ca, token, apiserver, folder / "apiserver.log")
        plane = ControlPlane(kubeconfig=folder / "kubeconfig", server=server, token=token, ca=ca.read_bytes())
        plane.kubeconfig.touch(0o600)
        plane.kubeconfig.write_text(kubeconfig_of(server, plane.ca, {"token": token}))
        controller_manager = assets / "kube-controller-manager"
        if controller_manager.exists():
            stack.enter_context(
                process(
                    folder / "controller-manager.log",
                    str(controller_manager),
                    f"--kubeconfig={plane.kubeconfig}",
                    "--leader-elect=false",
                    "--kube-api-qps=500",  # deleting a namespace takes some hundred requests; the default is 20 a second
                    "--kube-api-burst=1000",
                    f"--secure-port={free_port()}",
                    f"--cert-dir={folder}",
                    "--use-service-account-credentials",
                    f"--service-account-private-key-file={private}",
                    f"--root-ca-file={ca}",
                    *without_insecure_port(controller_manager),
                )
            )
        yield plane
