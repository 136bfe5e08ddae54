"""Become one process: ``python -m app.runtime.role ROLE``, for a container whose image is the same for all.

A role is a name in the Procfile (``web``, ``worker``, ...) or the words of a ``haulier`` command (``jobs first_time``,
``db upgrade``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from app.runtime.supervisor import procfile
from config import process


def command_of(role: Sequence[str]) -> list[str]:
    """Program and arguments of a role.

    Raises:
        ValueError: No role was given.
    """
    programs = {program.name: program.command for program in procfile()}
    if not role:
        raise ValueError(f"expected a role: one of {', '.join(programs)}, or a haulier command; got none")
    if len(role) == 1 and role[0] in programs:
        return ["/bin/sh", "-c", f"exec {programs[role[0]]}"]
    return ["haulier", *role]


def main(arguments: Sequence[str] | None = None) -> None:
    """Replace this process by the role's, so that it gets the container's signals."""
    try:
        command = command_of(sys.argv[1:] if arguments is None else arguments)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    environment = process.environment()
    beside_us = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([beside_us, environment.get("PATH", os.defpath)])
    os.execvpe(command[0], command, environment)  # noqa: S606 - starting it without a shell is the point


if __name__ == "__main__":
    main()
