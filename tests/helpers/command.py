"""The command line in this process: exit code, standard output and standard error."""

import sys
from collections.abc import Callable

import pytest

from voxclone import cli

Command = Callable[..., tuple[int, str, str]]


def make_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """A function that runs `voxclone ARGUMENTS` as its entry point does."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["voxclone", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def sentence(error: str) -> str:
    """Standard error, checked to be one sentence without a traceback."""
    assert error.startswith("voxclone: ") and "Traceback" not in error
    assert len(error.strip().splitlines()) == 1, error
    return error
