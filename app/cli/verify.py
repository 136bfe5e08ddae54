"""``haulier verify``: check exported files against their manifest, without a server."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import click

from app.cli import output
from app.cli.failures import Exit, failed
from app.cli.target import data_option, json_option, signing_secret
from app.domain.manifests import Part, Signed, parts_of, signature_of

_BLOCK_BYTES: Final = 1 << 20
_NAMES: Final = ("manifest.json", "*.manifest.json")


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--require-signature", is_flag=True, help="Fail unless the signature is there, checked and valid.")
@data_option
@json_option
@click.pass_context
def verify(context: click.Context, path: Path, require_signature: bool, data_dir: Path | None, as_json: bool) -> None:
    """Check the files of an export: PATH is its manifest, or the folder where manifest and files lie.

    Nothing is asked of a server. The signature is checked with HAULIER_SECRET_KEY of the installation that made it.
    """
    file = _manifest_file(path)
    manifest = _read(file)
    parts = _parts(file, manifest)
    parts = [_as_found(file.parent, part) for part in parts]
    faults = {part.name: fault for part in parts if (fault := _fault(file.parent / part.name, part))}
    signature = signature_of(manifest, signing_secret(data_dir))
    unproved = signature is Signed.WRONG or (require_signature and signature is not Signed.VALID)
    report = {
        "manifest": str(file),
        "job_id": manifest.get("job_id"),
        "rows": manifest["rows"],
        "files": [{"name": part.name, "rows": part.rows, "fault": faults.get(part.name)} for part in parts],
        "signature": signature.value,
        "ok": not faults and not unproved,
    }
    if as_json:
        output.as_json(report)
    else:
        _tell(report)
    context.exit(Exit.OK if report["ok"] else Exit.FAILED)


def _manifest_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted({file for name in _NAMES for file in path.glob(name)})
    if len(found) != 1:
        said = "no manifest" if not found else f"{len(found)} manifests"
        raise failed(
            f"{path} holds {said}",
            Exit.USAGE if found else Exit.NOT_FOUND,
            code="manifest.not_one",
        )
    return found[0]


def _read(file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise failed(f"there is no file {file}", Exit.NOT_FOUND, code="manifest.not_found") from None
    except (OSError, ValueError) as error:
        raise failed(f"{file} cannot be read as JSON: {error}", Exit.USAGE, code="manifest.invalid") from None
    if not isinstance(manifest, dict):
        raise failed(f"{file} is no manifest: expected a JSON object", Exit.USAGE, code="manifest.invalid")
    return manifest


def _parts(file: Path, manifest: dict[str, Any]) -> list[Part]:
    try:
        return parts_of(manifest)
    except ValueError as error:
        raise failed(f"{file} is no manifest: {error}", Exit.USAGE, code="manifest.invalid") from None


def _as_found(folder: Path, part: Part) -> Part:
    """An encrypted file as it lies here: as it was stored, or, where it is not, as it was downloaded."""
    return part.sealed if part.sealed is not None and (folder / part.sealed.name).exists() else part


def _fault(file: Path, part: Part) -> str | None:
    """What is wrong with a file, ``None`` when it is the one that was exported."""
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                size_bytes += len(block)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if size_bytes != part.size_bytes:
        return f"has {size_bytes} bytes, expected {part.size_bytes}"
    return None if digest.hexdigest() == part.sha256 else f"has SHA-256 {digest.hexdigest()}, expected {part.sha256}"


_SAID: Final = {
    Signed.VALID: "valid",
    Signed.WRONG: "WRONG: the manifest was changed after it was signed",
    Signed.MISSING: "none: the installation had no HAULIER_SECRET_KEY",
    Signed.UNCHECKED: "not checked: set HAULIER_SECRET_KEY to that of the installation which signed it",
}


def _tell(report: dict[str, Any]) -> None:
    for one in report["files"]:
        click.echo(f"{one['name']}: {one['fault'] or 'as exported'}")
    click.echo(f"signature {_SAID[Signed(report['signature'])]}")
    click.echo(
        f"{output.number(report['rows'])} rows in {len(report['files'])} files: {'ok' if report['ok'] else 'NOT OK'}"
    )
