"""How settings come together: flags over environment over file over defaults, as text, then parsed once into a frozen value.

A settings class is a frozen dataclass whose fields are made with `setting()`. The same declaration gives the key of the
TOML file, the environment variable, the flags and the help text, so these cannot drift apart.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, get_args, get_origin

from vanadium_node.errors import ConfigurationError, InputError, clip

T = TypeVar("T")
MAX_FILE_BYTES: Final = 1024 * 1024
_METADATA_KEY: Final = "vanadium_node.config"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: where its text comes from, how it is parsed, and what it means.

    `name` is the key in a file; `kind` the type of the value; `secret` values are never printed; `render` is the inverse
    of `parse`.
    """

    name: str
    kind: Any
    help: str
    parse: Callable[[str], object]
    render: Callable[[Any], str]
    flags: tuple[str, ...]
    environment: str | None
    secret: bool
    is_required: bool
    default: object

    @property
    def field(self) -> str:
        """The name of the dataclass field."""
        return self.name.replace("-", "_")


def setting(
    parse: Callable[[str], T],
    *,
    help: str,  # noqa: A002 - the word of every command line library
    flags: Sequence[str] = (),
    environment: str | None = None,
    default: object = dataclasses.MISSING,
    render: Callable[[Any], str] = str,
    secret: bool = False,
) -> Any:
    """Declare a field of a settings class; without a default the setting is required."""
    described = {
        "help": help,
        "parse": parse,
        "render": render,
        "flags": tuple(flags),
        "environment": environment,
        "secret": secret,
    }
    metadata = {_METADATA_KEY: described}
    return dataclasses.field(default=default, metadata=metadata)


def settings_of(role: type) -> tuple[Setting, ...]:
    """Return the settings that a settings class declares, its own first, then those that it inherits, in order."""
    own = role.__annotations__
    fields = sorted(dataclasses.fields(role), key=lambda field: field.name not in own)
    return tuple(
        Setting(
            name=field.name.replace("_", "-"),
            kind=field.type,
            is_required=field.default is dataclasses.MISSING,
            default=field.default,
            **field.metadata[_METADATA_KEY],
        )
        for field in fields
    )


def load(
    role: type[T], *, flags: Mapping[str, str | None], environment: Mapping[str, str], file: Path | None = None
) -> T:
    """Return the settings of a role. `flags` maps names of settings to the text given, None where none was.

    Raises:
        ConfigurationError: a value is wrong, missing, or under an unknown key; the message names where it came from.
    """
    return load_with_sources(role, flags=flags, environment=environment, file=file)[0]


def load_with_sources(
    role: type[T], *, flags: Mapping[str, str | None], environment: Mapping[str, str], file: Path | None = None
) -> tuple[T, Mapping[str, str]]:
    """Return what `load` does, and where each value comes from: name → flag, variable or file; none for a default.

    The file is read once, so that it may be a pipe.

    Raises:
        ConfigurationError: as `load`.
    """
    known = settings_of(role)
    from_file = _read(file, known) if file is not None else {}
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for declared in known:
        given = _given(declared, flags, environment, from_file, file)
        if given is not None:
            values[declared.field] = _parsed(declared, *given)
            sources[declared.name] = given[1]
        elif declared.is_required:
            raise ConfigurationError(f"'{declared.name}' is not set", hint=f"set it with {_ways(declared, file)}")
    return role(**values), sources


def to_toml(value: object, sources: Mapping[str, str] | None = None) -> str:
    """Return the effective settings as the TOML file that gives the same; secrets are left out, unset ones are comments.

    With `sources` each line says where its value comes from.
    """
    lines: list[str] = []
    for declared in settings_of(type(value)):
        current = getattr(value, declared.field)
        lines.append(f"# {declared.help}")
        source = "" if sources is None else f"  # {clip(sources.get(declared.name, 'default'))}"
        if declared.secret and current is not None:
            lines.append(f"# {declared.name} = (set, not shown){source}")
        elif current == declared.default and current in (None, ()):
            lines.append(f"# {declared.name} =")
        else:
            lines.append(f"{declared.name} = {_toml_text(declared.render(current))}{source}")
    return "\n".join(lines) + "\n"


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the hint that names the known key nearest to `name`."""
    from difflib import get_close_matches  # only on the way to an error

    near = get_close_matches(name.lower().replace("_", "-"), known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(known)}"


def _given(
    declared: Setting,
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    from_file: Mapping[str, str],
    file: Path | None,
) -> tuple[str, str] | None:
    """Return the text of a setting and where it came from; an empty environment variable counts as unset."""
    flag = flags.get(declared.name)
    if flag is not None:
        return flag, declared.flags[0]
    if declared.environment and environment.get(declared.environment):
        return environment[declared.environment], f"environment variable {declared.environment}"
    if declared.name in from_file:
        return from_file[declared.name], f"'{declared.name}' in '{file}'"
    return None


def _parsed(declared: Setting, text: str, source: str) -> object:
    try:
        return declared.parse(text)
    except InputError as error:
        raise ConfigurationError(f"{source}: {error.message}", hint=error.hint) from error


def _ways(declared: Setting, file: Path | None) -> str:
    ways = [declared.flags[0]] if declared.flags else []
    if declared.environment:
        ways.append(f"the environment variable {declared.environment}")
    where = f"'{file}'" if file else "the file given with --config"
    ways.append(f"the key '{declared.name}' in {where}")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _read(path: Path, known: Sequence[Setting]) -> dict[str, str]:
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no configuration file '{path}'", hint="check --config") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read '{path}': {error.strerror}", hint="check --config") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"'{path}' is larger than {MAX_FILE_BYTES} bytes", hint="check --config")
    import tomllib  # memory that only files need

    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"'{path}' is no UTF-8 text: byte {error.start} is wrong", hint="save it as UTF-8"
        ) from error
    except ValueError as error:  # TOMLDecodeError
        raise ConfigurationError(f"'{path}' is not valid TOML: {clip(str(error))}", hint="correct the file") from error
    names = {declared.name: declared for declared in known}
    for key in document:
        if key not in names:
            raise ConfigurationError(f"'{path}': unknown key '{clip(key)}'", hint=nearest(key, list(names)))
    return {key: _text(path, names[key], value) for key, value in document.items()}


def _text(path: Path, declared: Setting, value: object) -> str:
    """Return a TOML value as the text that a flag would have; a list is joined with commas, where the setting is one."""
    is_list = get_origin(declared.kind) is tuple
    kind = get_args(declared.kind)[0] if is_list else declared.kind
    words = [_word(each, kind) for each in (value if is_list and isinstance(value, list) else [value])]
    found = [word for word in words if word is not None]
    if len(found) == len(words):
        return ",".join(found)
    what = {bool: "true, false or a text", int: "a whole number or a text"}.get(kind, "a text")
    raise ConfigurationError(
        f"'{path}': '{declared.name}' must be {what}{' or a list of such' if is_list else ''}", hint="correct the file"
    )


def _word(value: object, kind: object) -> str | None:
    """Return the text of a TOML value that is a text, or of a type that `kind` has in TOML; else None."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower() if kind is bool else None
        case int() if kind in (int, timedelta, timedelta | None):
            return str(value)
    return None


def _toml_text(text: str) -> str:
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else f"\\{c}" if c in '"\\' else c for c in text
    )
    return f'"{escaped}"'
