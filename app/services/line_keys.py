"""Keys of encrypted lines: given by the tenant, who shares them with those who read the files."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error

from app.dataplane.encrypted_lines import LineKey, check_name
from app.domain.errors import ConflictError, InvalidRequestError, Problem
from app.persistence import changes
from app.persistence import line_keys as rows
from app.persistence.line_keys import KeptKey
from app.persistence.sessions import Sessions
from app.security.master_keys import KEY_BYTES, MasterKeys


class LineKeys:
    """The use cases of such keys.

    Args:
        keys: Seal them; each is readable in its own row alone.
    """

    def __init__(self, sessions: Sessions, keys: MasterKeys) -> None:
        self._sessions = sessions
        self._keys = keys

    def add(self, tenant: str, name: str, key: str, *, actor: str) -> KeptKey:
        """Keep a key of 32 bytes, given as base64.

        Raises:
            InvalidRequestError: It is none; ``line_key.name_invalid``, ``line_key.no_master_key``.
            ConflictError: There is one of this name.
        """
        if not self._keys:
            raise InvalidRequestError(
                "this installation has no HAULIER_MASTER_KEY to seal keys with", code="line_key.no_master_key"
            )
        check_name(name)
        sealed = self._keys.seal(_decoded(key), context=_context(tenant, name))
        with self._sessions.begin() as session:
            kept = rows.add(session, tenant, name, sealed=sealed, created_by=actor)
            if kept is None:
                raise ConflictError(f"there is a line key {name!r}; lines bear its name", code="line_key.name_taken")
            changes.add(session, tenant, actor=actor, what=f"line key {name}", before=None, after={"name": name})
        return kept

    def of_tenant(self, tenant: str) -> list[KeptKey]:
        """A tenant's keys by name, without themselves."""
        with self._sessions.begin() as session:
            return rows.of_tenant(session, tenant)

    def remove(self, tenant: str, name: str, *, actor: str) -> None:
        """Forget a key; what was encrypted with it is read by those who have it.

        Raises:
            NotFoundError: The tenant has none of this name.
        """
        with self._sessions.begin() as session:
            rows.remove(session, tenant, name)
            changes.add(session, tenant, actor=actor, what=f"line key {name}", before={"name": name}, after=None)

    def open(self, tenant: str, name: str, *, customer_id: str) -> LineKey:
        """A key to encrypt lines with.

        Raises:
            NotFoundError: The tenant has none of this name.
            JobError: ``master_key.unknown``, ``master_key.tampered``.
        """
        with self._sessions.begin() as session:
            sealed = rows.sealed(session, tenant, name)
        return LineKey(name, self._keys.open(sealed, context=_context(tenant, name)), customer_id)


def _decoded(key: str) -> bytes:
    try:
        found = b64decode(key, validate=True)
    except (Base64Error, ValueError):
        found = b""
    if len(found) != KEY_BYTES:
        said = f"expected {KEY_BYTES} bytes as base64"
        raise InvalidRequestError("the key cannot be used", code="line_key.invalid", problems=(Problem("/key", said),))
    return found


def _context(tenant: str, name: str) -> str:
    return f"line key/{tenant}/{name}"
