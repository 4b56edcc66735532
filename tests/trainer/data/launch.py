"""Runs `prepare` as a command of its own: python -m tests.trainer.data.launch ARGUMENTS."""

from tensorsurgeon.terminal import run_command_line
from tensorsurgeon.trainer.data.command import prepare

if __name__ == "__main__":
    run_command_line(prepare, "prepare")
