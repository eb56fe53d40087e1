"""From a cluster's access values to a TLS context and request headers: tokens, token files, exec plugins, passwords.

Tokens are obtained when they are first needed, when they expire and once more after a 401. Private keys reach OpenSSL
through memory files where the system has them. Nothing of a credential gets into a message.
"""

import base64
import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import trio

from vanadium_node.errors import ConfigurationError, VanadiumError, clip
from vanadium_node.kube.kubeconfig import ClusterAccess, ExecPlugin

EXEC_GROUP: Final = "client.authentication.k8s.io"
EXEC_VERSIONS: Final = frozenset(f"{EXEC_GROUP}/{version}" for version in ("v1", "v1beta1"))
EXEC_SECONDS: Final = 60.0
"""How long a plugin may take; a person may have to open a browser."""

TOKEN_FILE_LIFE: Final = timedelta(minutes=1)
"""How long a token from a file is used before the file is read again: kubelets renew it while a program runs."""

EARLY: Final = timedelta(seconds=10)
"""A credential that ends within this time is renewed before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a plugin or a file gave: a token, a client certificate with its key, and when they end."""

    token: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    expires: datetime | None = None

    def __repr__(self) -> str:
        """Keep the token and the key out of logs and tracebacks."""
        return "Credential(…)"

    def is_over(self, now: datetime) -> bool:
        """Tell whether it is time for a new one."""
        return self.expires is not None and now + EARLY >= self.expires


class RenewedBearer(httpx.Auth):
    """A bearer token that is obtained again when it ends, and once more when the server says 401."""

    def __init__(self, obtain: Callable[[], Awaitable[Credential]], first: Credential | None = None) -> None:
        self._obtain = obtain
        self._credential = first

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add the header; see the class."""
        if self._credential is None or self._credential.is_over(datetime.now(UTC)):
            self._credential = await self._obtain()
        response = yield self._signed(request, self._credential)
        if response.status_code == 401:
            self._credential = await self._obtain()
            yield self._signed(request, self._credential)

    @staticmethod
    def _signed(request: httpx.Request, credential: Credential) -> httpx.Request:
        if credential.token is not None:
            request.headers["Authorization"] = f"Bearer {credential.token}"
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What an HTTP client needs to be who the access says: a TLS context and an authentication."""

    tls: ssl.SSLContext | bool
    auth: httpx.Auth | None

    @classmethod
    async def from_access(cls, access: ClusterAccess) -> "Login":
        """Run the access's plugin if it has one, and build the context.

        Raises:
            ConfigurationError: the plugin, a certificate or a key is unusable.
        """
        user = access.user
        certificate, key = user.client_certificate, user.client_key
        auth: httpx.Auth | None = None
        if user.token_file is not None:
            path = user.token_file
            auth = RenewedBearer(lambda: read_token(trio.Path(path)))
        elif user.token is not None:
            token = Credential(token=user.token)
            auth = RenewedBearer(lambda: _same(token), token)
        elif user.username is not None and user.password is not None:
            auth = httpx.BasicAuth(user.username, user.password)
        elif user.plugin is not None:
            plugin = user.plugin
            first = await run_plugin(plugin, access)
            if first.certificate is not None:
                certificate, key = first.certificate, first.key
            auth = RenewedBearer(lambda: run_plugin(plugin, access), first)
        if not access.server.startswith("https:"):
            return cls(tls=False, auth=auth)
        return cls(tls=tls_context(access, certificate, key), auth=auth)


async def _same(credential: Credential) -> Credential:
    return credential


async def read_token(path: trio.Path) -> Credential:
    """Read a service account's token.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    try:
        token = await path.read_text()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the token file {path}: {error.strerror}", hint="check 'tokenFile'"
        ) from error
    return Credential(token=token.strip(), expires=datetime.now(UTC) + TOKEN_FILE_LIFE + EARLY)


async def run_plugin(plugin: ExecPlugin, access: ClusterAccess, environ: Mapping[str, str] = os.environ) -> Credential:
    """Run an exec plugin as kubectl does and return the credential it prints.

    Raises:
        ConfigurationError: it is not installed, fails, takes too long, or prints something else.
    """
    what = f"the login program '{plugin.command}' of {access.source}"
    if plugin.api_version not in EXEC_VERSIONS:
        raise ConfigurationError(
            f"{what} speaks '{clip(plugin.api_version)}', which is not supported",
            hint=f"supported are {', '.join(sorted(EXEC_VERSIONS))}: write the kubeconfig anew with a current tool",
        )
    interactive = plugin.needs_terminal and sys.stdin.isatty()
    environment = {**environ, **dict(plugin.env), "KUBERNETES_EXEC_INFO": _exec_info(plugin, access, interactive)}
    try:
        with trio.fail_after(EXEC_SECONDS):
            result = await trio.run_process(
                [plugin.command, *plugin.args],
                env=environment,
                stdin=None if interactive else subprocess.DEVNULL,
                capture_stdout=True,
                capture_stderr=not interactive,
                check=False,
            )
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{what} is not installed", hint=clip(plugin.install_hint) or "install it, or use another kubeconfig"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{what} cannot be run: {error.strerror}", hint="check the file") from error
    except trio.TooSlowError as error:
        raise ConfigurationError(f"{what} did not answer within {EXEC_SECONDS:.0f} s", hint="run it by hand") from error
    if result.returncode != 0:
        said = clip((result.stderr or b"").decode(errors="replace").strip())
        raise ConfigurationError(
            f"{what} failed with exit status {result.returncode}: {said}", hint="log in again with it"
        )
    return parse_exec_credential(result.stdout, what)


def parse_exec_credential(printed: bytes, what: str) -> Credential:
    """Return the credential of an `ExecCredential` document.

    Raises:
        ConfigurationError: it is no such document, or holds neither a token nor a certificate.
    """
    problem = ConfigurationError(
        f"{what} printed no usable ExecCredential", hint="log in again with it, or run it by hand"
    )
    try:
        status = json.loads(printed)["status"]
        end = status.get("expirationTimestamp")
        expires = None if end is None else datetime.fromisoformat(end)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise problem from error
    token, certificate, key = (status.get(k) for k in ("token", "clientCertificateData", "clientKeyData"))
    if not all(value is None or isinstance(value, str) for value in (token, certificate, key)):
        raise problem
    if token is None and (certificate is None or key is None):
        raise problem
    return Credential(
        token=token,
        certificate=certificate.encode() if certificate else None,
        key=key.encode() if key else None,
        expires=expires if expires is None or expires.tzinfo else expires.replace(tzinfo=UTC),
    )


def _exec_info(plugin: ExecPlugin, access: ClusterAccess, interactive: bool) -> str:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.provide_cluster_info:
        cluster: dict[str, Any] = {"server": access.server}
        if access.ca is not None:
            cluster["certificate-authority-data"] = base64.b64encode(access.ca).decode()
        if access.insecure:
            cluster["insecure-skip-tls-verify"] = True
        if access.tls_server_name:
            cluster["tls-server-name"] = access.tls_server_name
        spec["cluster"] = cluster
    return json.dumps({"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec})


def tls_context(access: ClusterAccess, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """Build the TLS context for a cluster: its CA (else the system's), and the client certificate if there is one.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """
    try:
        ca = None if access.ca is None else access.ca.decode("ascii")
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(
            f"the certificate authority of {access.source} is not a PEM certificate", hint="write the kubeconfig anew"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if access.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None and key is not None:
        try:
            with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
                context.load_cert_chain(certificate_path, key_path, password=_no_passphrase)
        except (ssl.SSLError, VanadiumError) as error:
            raise ConfigurationError(
                f"the client certificate or key of {access.source} cannot be used", hint="write the kubeconfig anew"
            ) from error
    return context


def _no_passphrase() -> str:
    raise ConfigurationError("the client key is encrypted", hint="use a key without a passphrase")


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """Give OpenSSL a path to `data`: in memory on Linux, elsewhere a private file that is removed at once."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("credential", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            yield file.name
