"""Building the project's image with whichever builder is there, and pushing it to where the settings say it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from vanadium_node.controller.programs import is_installed, output_of, run_in_view
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.update_config import with_image
from vanadium_node.errors import ConfigurationError, InputError

BUILDERS: Final = ("docker", "podman", "buildah")
"""Programs that build images, in the order in which they are looked for; their options used here are the same."""

CONTAINERFILE: Final = Path("container") / "Containerfile"
USUAL_TAG: Final = "latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """What is to be built: the image of all roles, under each of the names, from a checkout of this project."""

    builder: str
    source: Path
    names: tuple[str, ...]
    build_arguments: tuple[str, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """The builder's command line."""
        tags = [part for name in self.names for part in ("--tag", name)]
        arguments = [part for argument in self.build_arguments for part in ("--build-arg", argument)]
        return (self.builder, "build", "--file", str(self.source / CONTAINERFILE), *tags, *arguments, str(self.source))

    @property
    def pushes(self) -> tuple[tuple[str, ...], ...]:
        """The command lines that push each name."""
        return tuple((self.builder, "push", name) for name in self.names)

    async def run(self, *, is_verbose: bool, push: bool) -> None:
        """Build, then push; nothing is pushed when the build fails.

        Raises:
            ConfigurationError: the builder fails.
        """
        place = f"'{self.source / CONTAINERFILE}'"
        await _run(
            self.command,
            is_verbose,
            doing=f"build {place}",
            hint="run it again with -v to see all that it says" if not is_verbose else "correct what it says above",
        )
        for name, command in zip(self.names, self.pushes, strict=True):
            if push:
                hint = f"log in to the registry ('{self.builder} login'), or use --no-push"
                await _run(command, is_verbose, doing=f"push '{name}'", hint=hint)


async def _run(command: Sequence[str], is_verbose: bool, *, doing: str, hint: str) -> None:
    install = f"install one of {', '.join(BUILDERS)}"
    if is_verbose:
        await run_in_view(command, doing=doing, install=install, hint=hint)
    else:
        await output_of(command, doing=doing, install=install, hint=hint)


def chosen_builder(given: str | None) -> str:
    """Return the program given, else the first builder there is.

    Raises:
        ConfigurationError: there is none.
    """
    if given is not None:
        return given
    found = next((builder for builder in BUILDERS if is_installed(builder)), None)
    if found is None:
        raise ConfigurationError(
            f"no program that builds images is installed (looked for {', '.join(BUILDERS)})",
            hint="install one, or name one with --builder",
        )
    return found


def source_folder(given: Path | None) -> Path:
    """Return the checkout to build: the one given, else the current folder, else the one this program runs from.

    Raises:
        InputError: it is no checkout of this project.
    """
    here = Path(__file__).parents[2]
    candidates = [Path(), here] if given is None else [given]
    found = next((c for c in candidates if (c / CONTAINERFILE).is_file() and (c / "pyproject.toml").is_file()), None)
    if found is None:
        raise InputError(
            f"there is no {CONTAINERFILE} in '{(given or Path()).absolute()}'",
            hint="name a checkout of vanadium-node with --source",
        )
    return found


def names_to_build(settings: Settings, tag: str) -> tuple[str, ...]:
    """Return the settings' images with the tag, and as the settings have them where these follow the latest build.

    Raises:
        InputError: the tag is none.
    """
    wanted: list[str] = []
    for image in (settings.cluster_agent.image, settings.pod_agent.image):
        usual = with_image(image, f":{USUAL_TAG}")
        follows = image in {usual, usual.removesuffix(f":{USUAL_TAG}")}
        wanted += [with_image(image, f":{tag}"), *([usual] if follows else [])]
    return tuple(dict.fromkeys(wanted))


def timestamp_tag(now: datetime) -> str:
    """Return the tag of a build that was given none."""
    return now.strftime("%Y%m%d-%H%M%S")
