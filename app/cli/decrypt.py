"""``haulier decrypt``: open a file that was exported encrypted, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from app.cli.failures import Exit, failed
from app.cli.target import data_option, opening_keys
from app.domain.errors import JobError
from app.domain.manifests import SEALED_SUFFIX
from app.security.master_keys import MasterKeys
from app.security.sealed_files import open_sealed


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o", "--output", "target", type=click.Path(dir_okay=False, path_type=Path), help="Default: without .sealed"
)
@data_option
def decrypt(path: Path, target: Path | None, data_dir: Path | None) -> None:
    """Decrypt PATH, a file that `encrypted: true` wrote.

    Nothing is asked of a server: the keys are HAULIER_MASTER_KEY and HAULIER_FORMER_MASTER_KEYS of the installation
    that wrote it. Nothing appears under the output's name unless all of it is as it was written.
    """
    target = target or path.with_name(path.name.removesuffix(SEALED_SUFFIX))
    if target == path:
        raise failed(f"{path.name} does not end in {SEALED_SUFFIX}: give --output", Exit.USAGE, code="usage.no_output")
    draft = target.with_name(target.name + ".part")
    try:
        with path.open("rb") as source, draft.open("wb") as sink:
            _decrypt(source, sink, path.stat().st_size, MasterKeys(opening_keys(data_dir)))
    except OSError as error:
        raise failed(f"{error.filename}: {error.strerror}", Exit.NOT_FOUND, code="file.not_readable") from None
    except JobError as error:
        draft.unlink()
        raise failed(f"{path}: {error.detail}", code=error.code) from None
    draft.replace(target)
    click.echo(f"{target}: as it was written")


def _decrypt(source: BinaryIO, sink: BinaryIO, sealed_bytes: int, keys: MasterKeys) -> None:
    sealed = open_sealed(keys, source, sealed_bytes=sealed_bytes)
    # The frames begin where the header has just ended.
    for piece in sealed.read(lambda _: source):
        sink.write(piece)
