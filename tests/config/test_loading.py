"""Settings: where values come from and who wins, and how wrong ones are refused."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from vanadium_node.config import (
    ClusterAgentSettings,
    DischargerSettings,
    PodAgentSettings,
    load,
    load_with_sources,
    settings_of,
    to_toml,
)
from vanadium_node.errors import ConfigurationError
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal


@pytest.fixture
async def roots() -> str:
    """The text form of some root's blessings."""
    root = await Principal.create(PrivateKey.generate(), "root")
    assert root.store.default is not None
    return root.store.default.text


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    """Each source is used where no stronger one says anything."""
    file = tmp_path / "agent.toml"
    file.write_text('root-dir = "/file"\nlisten = ":1"\nblessing-ttl = "1h"\nadmin = ["root:a", "root:b"]\n')
    environment = {"DATADIR": "/environment", "LISTEN": ":2", "CLAIMER": ""}
    settings = load(ClusterAgentSettings, flags={"root-dir": "/flag"}, environment=environment, file=file)
    assert settings.root_dir == Path("/flag")
    assert settings.listen == ":2"
    assert settings.blessing_ttl == timedelta(hours=1)
    assert [str(p) for p in settings.admin] == ["root:a", "root:b"]
    assert settings.claimer == (), "an empty environment variable is an unset one"
    assert settings.pairing_token_file is None


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    """A misspelt key is refused instead of being silently without effect."""
    file = tmp_path / "agent.toml"
    file.write_text('root-dir = "/x"\nblesing-ttl = "1h"\n')
    with pytest.raises(
        ConfigurationError, match=r"agent\.toml': unknown key 'blesing-ttl'; did you mean 'blessing-ttl'"
    ):
        load(ClusterAgentSettings, flags={}, environment={}, file=file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("root-dir = ", "not valid TOML"),
        ("root-dir = {a = 1}", "'root-dir' must be a text"),
        ("root-dir = true", "'root-dir' must be a text"),
        ("root-dir = ['/x', '/y']", "'root-dir' must be a text"),
        ("root-dir = ''", "'root-dir' in .* the path is empty"),
        ('root-dir = "a\\u0000b"', "'root-dir' in .*has a zero byte"),
        ("root-dir = '/x'\npairing-token = 0x10", "'pairing-token' must be a text"),
        ("root-dir = '/x'\npairing-token = ''", "'pairing-token' in .* is empty"),
        ("root-dir = '/x'\nmax-connections = 1.5", "'max-connections' must be a whole number or a text"),
        ("root-dir = '/x'\nmax-connections = true", "'max-connections' must be a whole number or a text"),
        ("root-dir = '/x'\naudit-strict = 1", "'audit-strict' must be true, false or a text"),
        ("root-dir = '/x'\nadmin = [1]", "'admin' must be a text or a list of such"),
        ("ROOT_DIR = '/x'", "unknown key 'ROOT_DIR'; did you mean 'root-dir'"),
        ("root-dir = '/x'\nblessing-ttl = 5", "'blessing-ttl' in .* is not a duration"),
        ("root-dir = '/x'\nlisten = 'nowhere'", "is no address"),
        ("root-dir = '/x'\nlisten = ':65536'", "is no address"),
        ("root-dir = '/x'\nadmin = 'a::b'", "not a pattern"),
        ("root-dir = '/x'\npermissions = '{'", "not JSON"),
        ("root-dir = '/x'\npermissions = '{}'\npermissions-file = '/p'", "literally and as a file"),
        ("root-dir = '/x'\npermissions = '{}'\nclaimer = 'root'", "cannot be claimed"),
        ("root-dir = '/x'\ncredentials = '/c'", "needs permissions too"),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path: Path, content: str, reason: str) -> None:
    """One sentence names the file, the key and what would be right."""
    file = tmp_path / "agent.toml"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=reason):
        load(ClusterAgentSettings, flags={}, environment={}, file=file)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """With the first byte that is wrong; and one that does not end is not read to its end."""
    file = tmp_path / "agent.toml"
    file.write_bytes(b"root-dir = '\xe9'")
    with pytest.raises(ConfigurationError, match=r"agent\.toml' is no UTF-8 text: byte 12 is wrong; save it as UTF-8"):
        load(ClusterAgentSettings, flags={}, environment={}, file=file)
    with pytest.raises(ConfigurationError, match="larger than 1048576 bytes"):
        load(ClusterAgentSettings, flags={}, environment={}, file=Path("/dev/zero"))


def test_numbers_and_truth_need_no_quotes(tmp_path: Path) -> None:
    """Each kind of value as TOML has it."""
    file = tmp_path / "agent.toml"
    file.write_text("root-dir='/x'\nmax-connections=7\nmax-frame-size=65536\nblessing-ttl=0\naudit-strict=true\n")
    settings = load(ClusterAgentSettings, flags={}, environment={}, file=file)
    assert (settings.max_connections, settings.max_frame_size) == (7, 65536)
    assert (settings.blessing_ttl, settings.audit_strict) == (None, True)


async def test_numbers_of_users_are_a_list_or_one(roots: str, tmp_path: Path) -> None:
    """An empty one would let in whoever can open the socket; an octal number of TOML is not what a mode's digits say."""
    file = tmp_path / "agent.toml"
    file.write_text("allow-uid = [1000, 1001]\nallow-gid = 5\nsign-uid = '7,8'\n")
    settings = pod_agent(roots, file)
    assert (settings.allow_uid, settings.allow_gid, settings.sign_uid) == ((1000, 1001), (5,), (7, 8))
    for wrong, reason in (
        ("allow-uid = []", "there is no number in it"),
        ("allow-uid = ''", "there is no number in it"),
        ("allow-uid = [true]", "'allow-uid' must be a whole number or a text or a list of such"),
        ("socket-mode = 0o660", "'socket-mode' must be a text"),
    ):
        file.write_text(wrong)
        with pytest.raises(ConfigurationError, match=reason):
            pod_agent(roots, file)


def test_a_missing_file_and_a_missing_setting_are_named(tmp_path: Path) -> None:
    """The sentence says where the setting can be given."""
    with pytest.raises(ConfigurationError, match="there is no configuration file"):
        load(ClusterAgentSettings, flags={}, environment={}, file=tmp_path / "none.toml")
    with pytest.raises(ConfigurationError, match=r"'root-dir' is not set; .*--root-dir, .*DATADIR or .*key 'root-dir'"):
        load(ClusterAgentSettings, flags={}, environment={})


def test_the_error_of_a_variable_names_the_variable() -> None:
    """Who set the environment variable sees its name."""
    with pytest.raises(ConfigurationError, match="environment variable BLESSING_TTL: '5' is not a duration"):
        load(ClusterAgentSettings, flags={"root-dir": "/x"}, environment={"BLESSING_TTL": "5"})


def pod_agent(roots: str, file: Path | None = None, /, **changed: str) -> PodAgentSettings:
    """Return a pod agent's settings with some flags changed."""
    flags = {
        "agent": "/(root:cluster-agent)@cluster-agent.default:8193",
        "socket-path": "/agent/socket/agent.sock",
        "secret-key-file": "/agent/secret/secret",
        "root-blessings": roots,
    }
    flags |= {k.replace("_", "-"): v for k, v in changed.items()}
    return load(PodAgentSettings, flags=flags, environment={}, file=file)


async def test_the_pod_agent_as_it_is_injected(roots: str) -> None:
    """What the controller puts into a pod is understood."""
    settings = pod_agent(roots, socket_mode="0600")
    assert settings.socket_mode == 0o600
    assert settings.root_blessings[0].names == ("root",)
    pod_agent(roots, agent="/[::1]:8193")
    pod_agent(roots, agent="/(root:agent)@[fe80::1%eth0]:8193")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("socket_path", "/" + "x" * 107, "has 108 bytes.*at most 107; choose a shorter directory"),
        ("socket_path", "/" + "é" * 54, "has 109 bytes"),
        ("socket_mode", "rw", "no file mode"),
        ("socket_mode", "0o0660", "no file mode"),
        ("agent", "localhost:1", "no name of a server"),
        ("agent", "/(a::b)@localhost:1", "not a pattern"),
        ("agent", "/localhost", "no address"),
        ("root_blessings", "!", "root blessings cannot be read"),
        ("root_blessings", ",", "no blessings in it"),
    ],
)
async def test_wrong_pod_agent_settings(roots: str, name: str, value: str, reason: str) -> None:
    """Each is refused before anything else is done."""
    with pytest.raises(ConfigurationError, match=reason):
        pod_agent(roots, **{name: value})


@pytest.mark.parametrize("role", [ClusterAgentSettings, PodAgentSettings])
async def test_what_is_printed_gives_the_same_settings(role: type, roots: str, tmp_path: Path) -> None:
    """`--print-config` writes a file that can be used as it is."""
    flags = {
        "root-dir": '/data "dir"\\',
        "agent": "/host:1",
        "socket-path": "/s",
        "secret-key-file": "/f",
        "root-blessings": roots,
        "admin": "root:a,root:b",
        "blessing-ttl": "0",
    }
    known = {declared.name for declared in settings_of(role)}
    settings: object = load(role, flags={k: v for k, v in flags.items() if k in known}, environment={})
    file = tmp_path / "printed.toml"
    file.write_text(to_toml(settings))
    assert load(role, flags={}, environment={}, file=file) == settings


def test_where_each_value_comes_from_is_printed(tmp_path: Path) -> None:
    """Also where all are defaults, and where the file can be read only once, as a pipe."""
    assert 'listen = ":8194"  # default' in to_toml(*load_with_sources(DischargerSettings, flags={}, environment={}))
    reader, writer = os.pipe()
    os.write(writer, b'listen = ":1"\n')
    os.close(writer)
    pipe = Path(f"/dev/fd/{reader}")
    loaded = load_with_sources(
        DischargerSettings, flags={"log-level": "debug"}, environment={"DRAIN_TIMEOUT": "7s"}, file=pipe
    )
    os.close(reader)
    printed = to_toml(*loaded)
    assert f"listen = \":1\"  # 'listen' in '{pipe}'" in printed
    assert 'log-level = "debug"  # --log-level' in printed
    assert 'drain-timeout = "7s"  # environment variable DRAIN_TIMEOUT' in printed


@pytest.mark.parametrize("role", [ClusterAgentSettings, DischargerSettings, PodAgentSettings])
def test_every_setting_has_a_flag_and_a_help_text(role: type) -> None:
    """Names of fields, keys and flags go together."""
    for declared in settings_of(role):
        assert declared.flags
        assert declared.help.endswith(".")
        assert declared.field.replace("_", "-") == declared.name
