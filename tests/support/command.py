"""The command line in this process, and the one sentence of a command that is refused."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from introspection import __main__ as command_line


def run(*args: object) -> Any:
    return CliRunner().invoke(command_line.app, [str(arg) for arg in args])


def done(*args: object) -> Any:
    """The result of a command that ends well."""
    result = run(*args)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*args: object, says: str = "") -> str:
    """The one sentence on standard error of a command that ends with exit code 2."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    return one_sentence(result.stderr, result.stdout, says)


def one_sentence(stderr: str, stdout: str = "", says: str = "", longest: int = 600) -> str:
    lines = stderr.splitlines()
    assert not stdout and len(lines) == 1, (stdout, stderr)
    (line,) = lines
    assert line.startswith("error: ") and line.endswith(".") and line.isprintable()
    assert "Traceback" not in line and len(line) < longest
    assert says in line, line
    return line
