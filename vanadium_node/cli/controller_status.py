"""`vanadium-node controller status` and `doctor`: what is there, what is wrong with it, and what to do next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from vanadium_node.cli.controller_options import Options
from vanadium_node.cli.output import console, emit, emit_json, is_terminal, note, run_async, warn
from vanadium_node.errors import VanadiumError

if TYPE_CHECKING:
    from vanadium_node.controller.doctor import Check
    from vanadium_node.controller.observing import Observation


@click.command()
@click.argument("application", required=False)
@click.option("-o", "--output", type=click.Choice(["wide", "json"]), help="More columns, or JSON.")
@click.option("-w", "--watch", is_flag=True, help="Go on, and show each change until Ctrl-C.")
@click.option("-A", "--all-namespaces", is_flag=True, help="Applications of all namespaces.")
@click.pass_obj
@run_async
async def status(
    options: Options, application: str | None, output: str | None, watch: bool, all_namespaces: bool
) -> None:
    """Show the applications: replicas, names, expiry, age of the secret, and what is left of interrupted commands.

    APPLICATION, a name or KIND/NAME, shows one with its replicas. The cluster agent's health comes first.
    """
    from vanadium_node.controller.observing import Question, keep_observing, observe

    async with options.site() as site:
        agent = options.cluster_agent(site, patience=timedelta(0))
        question = Question(namespace=None if all_namespaces else site.client.namespace, application=application)
        render = _renderer(options, application is not None, output, all_namespaces, indent=None if watch else 2)
        if not watch:
            seen = await observe(site, agent, question)
            for plural in seen.hidden:
                warn(f"you may not list {plural}, so those are not shown")
            emit(render(seen))
        elif is_terminal() and output != "json":
            from rich.live import Live
            from rich.text import Text

            with Live(console=console(), auto_refresh=False, vertical_overflow="visible") as live:
                await keep_observing(
                    site, agent, question, lambda seen: live.update(Text(render(seen).rstrip("\n")), refresh=True)
                )
        else:
            await keep_observing(site, agent, question, _changes(render))


def _renderer(
    options: Options, is_one: bool, output: str | None, namespaces: bool, *, indent: int | None
) -> Callable[[Observation], str]:
    """Return how an observation becomes text; JSON without an indent is one document a line."""
    import json

    from vanadium_node.cli import status_text

    def render(seen: Observation) -> str:
        if output == "json":
            return json.dumps(status_text.document(seen.agent, seen.applications), indent=indent, ensure_ascii=False)
        now, headers = datetime.now(UTC), not options.no_headers
        lines = [status_text.agent_line(seen.agent)] if headers else []
        wide = output == "wide"
        if seen.applications:
            lines += status_text.overview(seen.applications, now, wide=wide, namespaces=namespaces, headers=headers)
        elif headers:
            lines.append("No applications; 'start' starts one.")
        for application in seen.applications if is_one else ():
            lines += status_text.details(application, now, headers=headers)
        return "\n".join(lines) + "\n" if lines else ""

    return render


def _changes(render: Callable[[Observation], str]) -> Callable[[Observation], None]:
    """Return what prints, of each observation, the applications that say something new; times that pass say nothing."""
    from dataclasses import replace

    before: dict[tuple[str, str], object] = {}
    agent = ""

    def show(seen: Observation) -> None:
        nonlocal agent
        now = {(a.namespace, a.title): (a.state, str(a.progress), a.findings, a.secret) for a in seen.applications}
        fresh = [a for a in seen.applications if before.get((a.namespace, a.title)) != now[a.namespace, a.title]]
        gone = [title for _, title in before.keys() - now.keys()]
        if fresh or gone or str(seen.agent.health) != agent:
            emit(render(replace(seen, applications=tuple(fresh))))
        for title in sorted(gone):
            note(f"{title} is gone.")
        agent = str(seen.agent.health)
        before.clear()
        before.update(now)

    return show


@click.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="JSON, for machines.")
@click.pass_obj
@run_async
async def doctor(options: Options, output: str | None) -> int:
    """Check each precondition of the other commands, and say what to do where one does not hold.

    The exit status is 1 when something is ✗.
    """
    checks: list[Check] = []

    def tell(check: Check) -> None:
        checks.append(check)
        if output is None:
            emit(_check_line(check))

    await _check_all(options, tell)
    if output == "json":
        emit_json([{"name": c.name, "ok": c.is_good, "seen": c.seen, "nextStep": c.next_step or None} for c in checks])
    return 0 if all(check.is_good for check in checks) else 1


async def _check_all(options: Options, tell: Callable[[Check], None]) -> None:
    """Make the checks: of the files here first, then of the cluster."""
    from vanadium_node.controller.doctor import Check, check_principal, check_site

    try:
        settings = options.settings()
    except VanadiumError as error:
        tell(Check.failed("configuration", error))
        return
    tell(Check(name="configuration", is_good=True, seen=f"'{options.config}' is in order"))
    try:
        async with options.principal() as principal:
            credentials = check_principal(principal, settings, datetime.now(UTC))
    except VanadiumError as error:
        credentials = Check.failed("credentials", error)
    tell(credentials)
    try:
        async with options.site() as site:
            agent = options.cluster_agent(site, patience=timedelta(0))
            await check_site(site, agent, site.client.namespace, tell)
    except VanadiumError as error:
        tell(Check.failed("cluster", error))


def _check_line(check: Check) -> str:
    """Return a line about a check; the mark is coloured for people."""
    colour = "green" if check.is_good else "red"
    mark = click.style("✓" if check.is_good else "✗", fg=colour)
    return f"{mark} {check.name}: {check.seen}" + (f"\n    → {check.next_step}" if check.next_step else "")
