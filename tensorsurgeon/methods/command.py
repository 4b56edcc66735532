"""`tensorsurgeon methods`: the list, one method, or the manual's chapter."""

import click

from tensorsurgeon.errors import did_you_mean, printable
from tensorsurgeon.terminal import show, show_json


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print the manual's chapter on all methods.")
def methods(name: str | None, as_json: bool, markdown: bool) -> None:
    """List the methods a recipe can use; or tell of NAME what it does, takes and costs."""
    from tensorsurgeon.methods.catalogue import KNOWN
    from tensorsurgeon.methods.text import list_text

    if markdown and (name is not None or as_json):
        raise click.UsageError("--markdown is of all methods, and goes with nothing else")
    if name is not None and name not in KNOWN:
        known = did_you_mean(name, KNOWN)
        raise click.UsageError(f"there is no method '{printable(name)}': {known}")
    if name is None and not as_json and not markdown:
        show(list_text())
        return
    from tensorsurgeon.methods.description import describe, describe_all
    from tensorsurgeon.methods.manual import manual
    from tensorsurgeon.methods.text import method_json, method_text

    if markdown:
        show(manual().removesuffix("\n"))
    elif name is None:
        show_json([method_json(method) for method in describe_all()])
    elif as_json:
        show_json(method_json(describe(name)))
    else:
        show(method_text(describe(name)))
