"""What the command line shows: data on stdout; progress, notes and errors on stderr."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from tensorsurgeon.errors import OutputError, TensorSurgeonError, printable
from tensorsurgeon.specs import Progress, size_text


def say_notes(error: BaseException) -> None:
    """What was added to an error on its way."""
    for note in getattr(error, "__notes__", ()):
        say(printable(note))


def say(text: str) -> None:
    """For people, to stderr; a run goes on where nobody reads it any more."""
    try:
        click.echo(text, err=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def show(text: str) -> None:
    """Data, to stdout; quietly over where its reader has gone."""
    try:
        click.echo(text)
    except OSError as error:
        # What is left in the buffer must not be flushed once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(141)
        raise OutputError(f"cannot be written: {error.strerror}", where="stdout") from None


def colored(message: str) -> str:
    """An error in red with its fixes dimmed, where stderr is a terminal that may have colours."""
    if os.environ.get("NO_COLOR") or not sys.stderr.isatty():
        return message
    return "\n".join(
        click.style(line, dim=True) if line.startswith("  fix:") else click.style(line, fg="red")
        for line in message.splitlines()
    )


def show_json(value: object) -> None:
    """Data for programs, to stdout."""
    show(json.dumps(value, indent=2))


@contextmanager
def progress_on(*, quiet: bool) -> Iterator[Progress | None]:
    """A bar with bytes, speed and time left on a terminal; else a line every few seconds."""
    if quiet:
        yield None
    elif sys.stderr is not None and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _plain_progress()


def _plain_progress(seconds: float = 5.0) -> Progress:
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            say(f"{size_text(done)} of {size_text(total)} ({done / max(total, 1):.0%})")

    return progress


def run_command_line(command: click.Command, name: str) -> NoReturn:
    """Run a command; every error becomes one message and an exit code.

    Args:
        command: what to run, with the process's arguments.
        name: of the program, for its messages.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    try:
        command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.exceptions.NoArgsIsHelpError as nothing:
        say(nothing.format_message())
        sys.exit(nothing.exit_code)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            say(error.ctx.get_usage())
            say(f"Try '{error.ctx.command_path} --help' for help.")
        say(colored(f"error: {printable(error.format_message())}"))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as interruption:
        say("interrupted")
        say_notes(interruption.__cause__ or interruption)
        sys.exit(130)
    except SystemExit as ending:
        say_notes(ending)
        raise
    except TensorSurgeonError as error:
        say(colored(str(error)))
        say_notes(error)
        sys.exit(error.exit_code)
    sys.exit(0)


def _terminate(number: int, _frame: object) -> NoReturn:
    """End as Ctrl-C does, with threads stopped and the lock given back."""
    raise SystemExit(128 + number)
