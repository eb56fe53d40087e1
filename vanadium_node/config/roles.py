"""The settings of each daemon. Field names, with `-` for `_`, are the keys of the configuration file."""
# ruff: noqa: RUF009 - setting() is dataclasses.field() with more to say

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from vanadium_node.config import values
from vanadium_node.config.duration import format_duration, parse_duration
from vanadium_node.config.loading import setting
from vanadium_node.config.serving import DaemonSettings
from vanadium_node.errors import ConfigurationError
from vanadium_node.security.access import Permissions
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.pattern import ALL, Pattern

DEFAULT_PORT: Final = 8193
DISCHARGER_PORT: Final = 8194


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAgentSettings(DaemonSettings):
    """Settings of the cluster agent: it has permissions and a principal of its own, or makes a key and waits for its claim."""

    root_dir: Path = setting(
        values.path,
        flags=["--root-dir"],
        environment="DATADIR",
        help="Directory for the secrets and, where the agent is claimed, for its key.",
    )
    listen: str = setting(
        values.address,
        flags=["--listen", "--v23.tcp.address"],
        environment="LISTEN",
        default=f":{DEFAULT_PORT}",
        help="Where to listen: HOST:PORT, :PORT (all addresses); port 0 = any.",
    )
    root_blessings: tuple[Blessings, ...] = setting(
        values.root_blessings,
        flags=["--root-blessings"],
        environment="ROOT_BLESSINGS",
        default=(),
        render=values.render_blessings,
        help="Blessings whose roots are recognized, separated by commas.",
    )
    claimer: tuple[Pattern, ...] = setting(
        values.patterns,
        flags=["--claimer"],
        environment="CLAIMER",
        default=(),
        render=values.render_texts,
        help="Patterns of those who may claim a new agent, separated by commas.",
    )
    admin: tuple[Pattern, ...] = setting(
        values.patterns,
        flags=["--admin"],
        environment="ADMIN",
        default=(),
        render=values.render_texts,
        help="Patterns of those who may make and forget secrets once the agent is claimed, separated by commas.",
    )
    pairing_token: str | None = setting(
        values.text,
        flags=["--pairing-token"],
        environment="PAIRING_TOKEN",
        default=None,
        secret=True,
        help="The token that a claim must show. Other users of the machine can read flags: rather give a file.",
    )
    pairing_token_file: Path | None = setting(
        values.path,
        flags=["--pairing-token-file"],
        environment="PAIRING_TOKEN_FILE",
        default=None,
        help="File with the token that a claim must show; without a token none is asked for.",
    )
    credentials: Path | None = setting(
        values.path,
        flags=["--credentials", "--v23.credentials"],
        default=None,
        help="Credentials directory of an agent with permissions, which needs no claim; else V23_CREDENTIALS.",
    )
    permissions: Permissions | None = setting(
        values.permissions,
        flags=["--permissions-literal", "--v23.permissions.literal"],
        default=None,
        render=Permissions.encode,
        help='Who may do what, as JSON: {"Admin": {"In": ["root:alice"]}}. With permissions no claim is needed.',
    )
    permissions_file: Path | None = setting(
        values.path,
        flags=["--permissions", "--v23.permissions.file"],
        default=None,
        help="File with such permissions.",
    )
    blessing_ttl: timedelta | None = setting(
        values.lifetime,
        flags=["--blessing-ttl"],
        environment="BLESSING_TTL",
        default=timedelta(days=1),
        render=values.render_lifetime,
        help="How long a replica's blessings are valid at most, such as 90s, 24h or 7d; 0 = as long as the application's.",
    )
    rate_per_secret: int = setting(
        values.count,
        flags=["--rate-per-secret"],
        environment="RATE_PER_SECRET",
        default=200,
        help="How often a second blessings are given for one secret, ten seconds' worth at once; 0 = no limit.",
    )
    rate_per_address: int = setting(
        values.count,
        flags=["--rate-per-address"],
        environment="RATE_PER_ADDRESS",
        default=50,
        help="How often a second one address may ask for blessings, ten seconds' worth at once; 0 = no limit.",
    )
    max_in_flight: int = setting(
        values.count,
        flags=["--max-in-flight"],
        environment="MAX_IN_FLIGHT",
        default=256,
        help="How many calls are worked on at once; others are told to come again; 0 = no limit.",
    )
    audit_file: Path | None = setting(
        values.path,
        flags=["--audit-file"],
        environment="AUDIT_FILE",
        default=None,
        help="File for the audit log; else audit.jsonl in the agent's directory.",
    )
    audit_max_size: int = setting(
        values.size,
        flags=["--audit-max-size"],
        environment="AUDIT_MAX_SIZE",
        default=64 * 1024 * 1024,
        render=values.render_size,
        help="Size at which the audit log goes on in a new file, such as 64MiB.",
    )
    audit_keep: int = setting(
        values.count,
        flags=["--audit-keep"],
        environment="AUDIT_KEEP",
        default=16,
        help="How many older files of the audit log are kept; 0 = all.",
    )
    audit_strict: bool = setting(
        values.truth,
        flags=["--audit-strict"],
        environment="AUDIT_STRICT",
        default=False,
        render=values.render_truth,
        help="Whether replicas get no blessings while the audit log cannot be written (secrets never are changed then).",
    )
    drain_timeout: timedelta = setting(
        parse_duration,
        flags=["--drain-timeout"],
        environment="DRAIN_TIMEOUT",
        default=timedelta(seconds=5),
        render=format_duration,
        help="How long calls that are running may take to end after SIGTERM.",
    )

    def __post_init__(self) -> None:
        if self.pairing_token is not None and self.pairing_token_file is not None:
            raise ConfigurationError(
                "the pairing token is given twice", hint="leave out --pairing-token or --pairing-token-file"
            )
        if self.permissions is not None and self.permissions_file is not None:
            raise ConfigurationError(
                "permissions are given literally and as a file", hint="leave out --permissions or --permissions-literal"
            )
        has_permissions = self.permissions is not None or self.permissions_file is not None
        if self.credentials is not None and not has_permissions:
            raise ConfigurationError(
                "a cluster agent with credentials of its own needs permissions too, for nobody can claim it",
                hint='give --permissions FILE or --permissions-literal \'{"Admin": {"In": ["root:alice"]}}\'',
            )
        if has_permissions and (self.claimer or self.admin):
            raise ConfigurationError(
                "a cluster agent with permissions of its own cannot be claimed",
                hint="leave out --claimer and --admin, or the permissions",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodAgentSettings(DaemonSettings):
    """Settings of the pod agent."""

    agent: str = setting(
        values.agent_name,
        flags=["--agent"],
        environment="AGENT_NAME",
        help="Name of the cluster agent: /(PATTERN)@HOST:PORT.",
    )
    socket_path: Path = setting(
        values.socket_path,
        flags=["--socket-path"],
        environment="SOCKET_PATH",
        help="Where the socket for the pod's containers appears.",
    )
    secret_key_file: Path = setting(
        values.path,
        flags=["--secret-key-file"],
        environment="SECRET_KEY_FILE",
        help="File with the secret; read again at each renewal.",
    )
    root_blessings: tuple[Blessings, ...] = setting(
        values.root_blessings,
        flags=["--root-blessings"],
        environment="ROOT_BLESSINGS",
        render=values.render_blessings,
        help="Blessings whose roots are recognized, separated by commas.",
    )
    socket_mode: values.FileMode = setting(
        values.socket_mode,
        flags=["--socket-mode"],
        environment="SOCKET_MODE",
        default=values.FileMode(0o660),
        render=values.render_mode,
        help="Permissions of the socket, octal.",
    )
    allow_uid: tuple[int, ...] = setting(
        values.numbers,
        flags=["--allow-uid"],
        environment="ALLOW_UID",
        default=(),
        render=values.render_texts,
        help="Numbers of the users who may use the agent; with neither this nor allow-gid, whoever can open the socket.",
    )
    allow_gid: tuple[int, ...] = setting(
        values.numbers,
        flags=["--allow-gid"],
        environment="ALLOW_GID",
        default=(),
        render=values.render_texts,
        help="Numbers of groups whose members may use the agent; with neither this nor allow-uid, whoever can open the socket.",
    )
    sign_uid: tuple[int, ...] = setting(
        values.numbers,
        flags=["--sign-uid"],
        environment="SIGN_UID",
        default=(),
        render=values.render_texts,
        help="Numbers of the users who may have it sign, which connecting to others needs; with neither this nor sign-gid, whoever may use it.",
    )
    sign_gid: tuple[int, ...] = setting(
        values.numbers,
        flags=["--sign-gid"],
        environment="SIGN_GID",
        default=(),
        render=values.render_texts,
        help="Numbers of groups whose members may have it sign, which connecting to others needs; with neither this nor sign-uid, whoever may use it.",
    )
    bless_uid: tuple[int, ...] = setting(
        values.numbers,
        flags=["--bless-uid"],
        environment="BLESS_UID",
        default=(),
        render=values.render_texts,
        help="Numbers of the users who may have it bless others and mint discharges; with neither this nor bless-gid, whoever may use it.",
    )
    bless_gid: tuple[int, ...] = setting(
        values.numbers,
        flags=["--bless-gid"],
        environment="BLESS_GID",
        default=(),
        render=values.render_texts,
        help="Numbers of groups whose members may have it bless others and mint discharges; with neither this nor bless-uid, whoever may use it.",
    )
    drain_timeout: timedelta = setting(
        parse_duration,
        flags=["--drain-timeout"],
        environment="DRAIN_TIMEOUT",
        default=timedelta(seconds=5),
        render=format_duration,
        help="How long calls that are running may take to end after SIGTERM.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DischargerSettings(DaemonSettings):
    """Settings of the discharger."""

    credentials: Path | None = setting(
        values.path,
        flags=["--credentials", "--v23.credentials"],
        default=None,
        help="Credentials directory of the discharger, whose key caveats name; else V23_CREDENTIALS or V23_AGENT_PATH.",
    )
    listen: str = setting(
        values.address,
        flags=["--listen", "--v23.tcp.address"],
        environment="LISTEN",
        default=f":{DISCHARGER_PORT}",
        help="Where to listen: HOST:PORT, :PORT (all addresses); port 0 = any.",
    )
    allow: tuple[Pattern, ...] = setting(
        values.patterns,
        flags=["--allow"],
        environment="ALLOW",
        default=(Pattern.parse(ALL),),
        render=values.render_texts,
        help="Patterns of those who may have discharges, separated by commas; the default is everybody.",
    )
    deny_file: Path | None = setting(
        values.path,
        flags=["--deny-file"],
        environment="DENY_FILE",
        default=None,
        help="File with a rule a line: PATTERN, 'key FINGERPRINT' or 'caveat FINGERPRINT', then 'from TIME' or 'until TIME'. "
        "It is read again whenever it changes; while it cannot be read, nobody gets a discharge.",
    )
    discharge_ttl: timedelta = setting(
        parse_duration,
        flags=["--discharge-ttl", "--ttl"],
        environment="DISCHARGE_TTL",
        default=timedelta(seconds=10),
        render=format_duration,
        help="How long a discharge is valid: what is denied now works for so long still.",
    )
    drain_timeout: timedelta = setting(
        parse_duration,
        flags=["--drain-timeout"],
        environment="DRAIN_TIMEOUT",
        default=timedelta(seconds=5),
        render=format_duration,
        help="How long calls that are running may take to end after SIGTERM.",
    )

    def __post_init__(self) -> None:
        if self.discharge_ttl <= timedelta(0):
            raise ConfigurationError(
                "discharges that live for no time help nobody", hint="give --discharge-ttl 10s or so"
            )
