"""Server-side apply: merge what an applier wants into an object, and keep track of who wants what."""

from __future__ import annotations

from typing import Any

from vanadium_node.local.api import managed, schema, views
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.managed import MISSING, Fields, Path
from vanadium_node.local.api.objects import Object, ObjectStore, copied, timestamp
from vanadium_node.local.api.requests import Options, Target, check_is_for


def apply(store: ObjectStore, target: Target, config: Any, options: Options) -> tuple[Object, bool, tuple[str, ...]]:
    """Make the object that `config` wants, or change it so; return it, whether it was made, and warnings.

    Fields that this manager applied before and does not want any more are removed, unless somebody else owns them too.

    Raises:
        ApiError: another manager owns a field that would change (409), or the object is refused.
    """
    if not isinstance(config, dict) or not isinstance(config.get("metadata", {}), dict):
        raise ApiError.bad_request("the configuration to apply is not an API object")
    check_is_for(target, config)
    if config["metadata"].get("managedFields"):
        raise ApiError.bad_request("metadata.managedFields must be nil")
    resource = views.stored_as(target.resource)
    config, warnings = schema.cleaned(target.resource, config, options.validation)
    wanted = frozenset(path for path, _ in managed.leaves(config))
    time, manager = timestamp(store.now()), options.manager
    old = store.find(resource, target.namespace, str(target.name))
    if old is None:

        def first(new: Object, _old: Object | None) -> None:
            new["metadata"]["managedFields"] = [managed.entry(manager, "Apply", new, wanted, time)]

        return store.create(resource, config, dry_run=options.is_dry_run, stamp=first), True, warnings
    others = [found for found in managed.entries(old) if not _is_applier(found, manager)]
    contested = _contested(old, config, wanted, others)
    if contested and not options.is_forced:
        raise _conflict(resource, old, contested)
    new = _merged(copied(old), config)
    for path in sorted(_abandoned(old, manager, wanted, others), key=lambda p: (p[-1] != ".", -len(p))):
        new = managed.removed(new, path)  # whole elements first: without its keys an element is not found any more

    def stamp(after: Object, before: Object | None) -> None:
        after["metadata"]["managedFields"] = _entries(after, old, manager, wanted, contested, time)

    return store.update(resource, new, dry_run=options.is_dry_run, stamp=stamp), False, warnings


def _is_applier(found: Object, manager: str) -> bool:
    return found.get("manager") == manager and found.get("operation") == "Apply"


def _contested(old: Object, config: Object, wanted: Fields, others: list[Object]) -> dict[Path, str]:
    """Return the fields that would change and that somebody else owns, with that owner's name."""
    found: dict[Path, str] = {}
    for other in others:
        for path in managed.fields_of(other) & wanted:
            if managed.at(old, path) != managed.at(config, path):
                found[path] = f'"{other.get("manager")}"' + (
                    f" using {other.get('apiVersion')}" if other.get("operation") == "Update" else ""
                )
    return found


def _conflict(resource: ResourceType, old: Object, contested: dict[Path, str]) -> ApiError:
    shown = {_written(path): owner for path, owner in sorted(contested.items())}
    noun = "conflict" if len(shown) == 1 else "conflicts"
    listed = "\n".join(f"- {path}" for path in shown)
    owners = ", ".join(sorted(set(shown.values())))
    message = f"Apply failed with {len(shown)} {noun}: {noun} with {owners}:\n{listed}"
    if len(shown) == 1:
        message = f"Apply failed with 1 conflict: conflict with {owners}: {next(iter(shown))}"
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {o}", "field": p} for p, o in shown.items()]
    return ApiError(409, "Conflict", message, {"causes": causes})


def _written(path: Path) -> str:
    """Return a path as people read it: `.spec.template.spec.containers[name="web"].image`."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step != ".":
            text += f"[{step[2:].strip('{}').replace(chr(34), '', 2).replace(':', '=', 1)}]"
    return text


def _merged(old: Any, config: Any, path: Path = ()) -> Any:
    """Return `old` with what `config` wants; lists with keys are merged, the others replaced."""
    if isinstance(config, dict) and isinstance(old, dict) and not managed.is_atomic(path):
        result = dict(old)
        for key, value in config.items():
            result[key] = _merged(old.get(key), value, (*path, f"f:{key}"))
        return result
    if not isinstance(config, list) or not isinstance(old, list) or not config:
        return copied(config)
    steps = [managed.element_step(path, item) for item in config]
    if None in steps:
        return copied(config)
    there = {managed.element_step(path, item): item for item in old}
    kept = [item for step, item in there.items() if step not in steps]
    named = zip(steps, config, strict=True)
    return [*(_merged(there.get(s), c, (*path, str(s))) for s, c in named), *kept]


def _abandoned(old: Object, manager: str, wanted: Fields, others: list[Object]) -> Fields:
    """Return the fields that the manager applied before, wants no more, and nobody else owns."""
    before: Fields = frozenset()
    for found in managed.entries(old):
        if _is_applier(found, manager):
            before |= managed.fields_of(found)
    for other in others:
        before -= managed.fields_of(other)
    gone = (p for p in before - wanted if managed.at(old, p) is not MISSING)
    return frozenset(p for p in gone if not managed.is_key(p))


def _entries(
    new: Object, old: Object, manager: str, wanted: Fields, contested: dict[Path, str], time: str
) -> list[Object]:
    """Return the entries after the apply; unchanged ones keep their time, so that applying the same is no change."""
    result: list[Object] = []
    is_there = False
    for found in managed.entries(old):
        if not _is_applier(found, manager):
            result += managed.without(found, frozenset(contested))
        elif managed.fields_of(found) == wanted and found.get("apiVersion") == new["apiVersion"]:
            result.append(found)
            is_there = True
    return result if is_there else [*result, managed.entry(manager, "Apply", new, wanted, time)]
