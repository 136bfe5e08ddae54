"""The secrets of an embedded stack: made once, kept in ``<data>/secrets.json``, readable by its owner alone."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from app.runtime.errors import RuntimeStateError


@dataclass(frozen=True, slots=True)
class StackSecrets:
    """What the stores were set up with.

    Args:
        instance: Tells this data directory from a later one at the same path.
        postgres_password: Of the role ``haulier``.
        valkey_password: For AUTH.
        s3_access_key_id: The one S3 user.
        s3_secret_access_key: Its secret.
        secret_key: Signs manifests of exports; None in a directory of a version that signed none.
        master_key: Seals files and the credentials of sinks; None in a directory of a version that sealed none.
        admin_key: An API key with the role admin for tenant ``default``; None until the first start has made one.
    """

    instance: str
    postgres_password: str
    valkey_password: str
    s3_access_key_id: str
    s3_secret_access_key: str
    secret_key: str | None = None
    master_key: str | None = None
    admin_key: str | None = None


def make_secrets() -> StackSecrets:
    """New secrets; letters and digits only, so that they fit into URLs as they are."""
    return StackSecrets(
        instance=secrets.token_hex(8),
        postgres_password=secrets.token_hex(24),
        valkey_password=secrets.token_hex(24),
        s3_access_key_id="HA" + secrets.token_hex(9).upper(),
        s3_secret_access_key=secrets.token_hex(20),
        secret_key=secrets.token_hex(32),
        master_key=secrets.token_hex(32),
    )


def load_or_make(file: Path) -> StackSecrets:
    """The secrets in ``file``; written first when there is no such file.

    Raises:
        RuntimeStateError: The file is there but is not what we wrote.
    """
    if not file.exists():
        made = make_secrets()
        store(file, made)
        return made
    try:
        kept = StackSecrets(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise RuntimeStateError(f"{file} should hold the secrets of this data directory as JSON: {error}") from error
    missing = {name: secrets.token_hex(32) for name in ("secret_key", "master_key") if getattr(kept, name) is None}
    if missing:
        kept = replace(kept, **missing)
        store(file, kept)
    return kept


def store(file: Path, value: StackSecrets) -> None:
    """Replace ``file`` as a whole, mode 0600."""
    write_private(file, json.dumps(asdict(value), indent=2) + "\n")


def write_private(file: Path, text: str) -> None:
    """Write ``text`` to ``file`` so that readers see the old or the new content and only the owner may read (0600)."""
    draft = file.with_name(f"{file.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
