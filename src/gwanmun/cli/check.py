"""`gwanmun check`: are these manifests right?"""

from typing import Annotated

import typer

from gwanmun.cli.output import Bind, ControllerNames, Format, Output, Paths, bindings_of, emit, fail, table


def check(
    paths: Paths,
    bind: Bind = [],
    controller_name: ControllerNames = [],
    output: Output = Format.table,
    strict: Annotated[bool, typer.Option(help="warnings fail as well")] = False,
) -> None:
    """Validate manifests as an API server would, resolve them and show the conditions of every object.

    Exits with 0 where all is well, 1 where something is wrong, 2 where nothing could be checked. For example:

    \b
    gwanmun check manifests/
    gwanmun check manifests/ -o json | jq '.problems'
    """
    from gwanmun.app.offline import resolve_folders
    from gwanmun.app.report import is_warning, no_manifests, problem_line, row_lines
    from gwanmun.app.words import settings_of
    from gwanmun.status import rows, status_document

    resolved = resolve_folders(paths, bindings_of(bind), settings_of(controller_name))
    if not resolved.documents and not resolved.problems:
        fail(no_manifests(paths))
    statuses = resolved.resolution.statuses
    shown = rows(statuses)
    serious = [problem for problem in resolved.problems if strict or not is_warning(problem)]
    if output is Format.table:
        for problem in resolved.problems:
            typer.echo(problem_line(problem), err=True)
        for key, message in resolved.unheard:
            typer.echo(f"{key}: {message}", err=True)
        for row in shown:
            for line in row_lines(row):
                typer.echo(line, err=True)
        table(
            ("KIND", "NAMESPACE", "NAME", "PART", "", "CONDITIONS", "ROUTES"),
            [
                (
                    row.kind,
                    row.namespace,
                    row.name,
                    row.part,
                    "ok" if row.healthy else "WRONG",
                    " ".join(f"{name}={status}" for name, status in row.conditions),
                    "" if row.attached_routes is None else str(row.attached_routes),
                )
                for row in shown
            ],
        )
        wrong = sum(not row.healthy for row in shown) + len(resolved.unheard)
        typer.echo(
            f"{resolved.documents} objects, {len(resolved.problems)} problems in files, {wrong} conditions or references wrong"
        )
    else:
        emit(
            {
                "problems": [
                    *(problem_line(problem) for problem in resolved.problems),
                    *(f"{key}: {message}" for key, message in resolved.unheard),
                ],
                "objects": [
                    {
                        "group": key.group,
                        "kind": key.kind,
                        "namespace": key.namespace,
                        "name": key.name,
                        "status": status_document(status),
                    }
                    for key, status in sorted(statuses.items())
                ],
            },
            output,
        )
    if serious or resolved.unheard or any(not row.healthy for row in shown):
        raise typer.Exit(1)
