"""Packages with entry points, as an installer would leave them, without one."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "haulier-example-transfers"


def install(folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], *, version: str = "1.0.0") -> None:
    """Leave what tells of a package in ``folder``, which is to be on the path."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = (
        "\n".join([f"[{group}]", *(f"{point} = {value}" for point, value in points.items())])
        for group, points in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")


def install_example(folder: Path) -> None:
    """Install the package of ``examples/`` as its own pyproject.toml says."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    for module in project["tool"]["setuptools"]["py-modules"]:
        shutil.copy(EXAMPLE / f"{module}.py", folder)
    about = project["project"]
    install(folder, about["name"], about["entry-points"], version=about["version"])
