"""What arguments of the command line may be, and what is said of those that are not."""

from typing import Any

import click

from tensorsurgeon.errors import printable
from tensorsurgeon.specs import parse_repo, parse_size


class Size(click.ParamType[int]):
    """A number of bytes, as 512MB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes, or a usage error."""
        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(printable(str(error)), param, ctx)


class Repo(click.ParamType[str]):
    """A repository of the Hub, as org/name or org/name@branch."""

    name = "org/name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is, or a usage error."""
        try:
            return parse_repo(value)
        except ValueError as error:
            self.fail(printable(str(error)), param, ctx)


class Assignment(click.ParamType[tuple[str, str]]):
    """A name and what takes its place, as NAME=DIR."""

    name = "name=dir"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """The two sides, or a usage error."""
        name, equals, folder = str(value).partition("=")
        if not equals or not name or not folder:
            self.fail(f"'{printable(str(value))}' is not NAME=DIR", param, ctx)
        return name, folder


class Group(click.Group):
    """Suggests the nearest command for a mistyped one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant, or a usage error that names the nearest."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from tensorsurgeon.errors import did_you_mean

            commands = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"there is no command '{printable(args[0])}': {commands}")
        return super().resolve_command(ctx, args)
