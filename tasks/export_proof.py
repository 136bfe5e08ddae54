"""The end of an export: its signed manifest, its artifacts, and what the job says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid5

from app.dataplane.export_columns import Selection
from app.domain.artifacts import Artifact, ArtifactKind
from app.domain.job_types import Result
from app.domain.jobs import Outcome
from app.domain.manifests import ENCRYPTION, SEALED_SUFFIX, signed
from app.domain.places import relative_key
from app.domain.ports import ObjectRef
from app.domain.sink_plugins import SinkFile
from app.persistence import artifacts, jobs
from tasks.context import RunContext
from tasks.export_place import Place
from tasks.export_state import ExportState, FileState

if TYPE_CHECKING:
    from tasks.export_run import Shape


def publish(
    job: RunContext, selection: Selection, shape: Shape, place: Place, state: ExportState, *, vql: dict[str, Any]
) -> Result:
    """Store the manifest beside the files, then their artifacts under the job's fence."""
    secret = job.settings.secret_key
    manifest = signed(
        _manifest(job, selection, shape, state, vql), None if secret is None else secret.get_secret_value()
    )
    body = json.dumps(manifest, indent=2).encode()
    ref = place.manifest(state.stem, in_parts=shape.in_parts)
    job.check()
    place.store.put(ref, body, content_type="application/json", filename=ref.key.rsplit("/", 1)[-1])
    if shape.delivery is not None:
        shape.delivery.bring(job, state, _to_deliver(job, shape, state, ref, body))
    _record(job, shape, state, ref, len(body))
    return _result(job, shape, state, manifest, ref)


def _manifest(
    job: RunContext, selection: Selection, shape: Shape, state: ExportState, vql: dict[str, Any]
) -> dict[str, Any]:
    """What the files are; the same from every run that gets here."""
    parts = [_part(job, state, one) for one in state.files]
    return {
        "version": 2,
        "job_id": str(job.id),
        "tenant": job.job.tenant,
        "table": selection.table.name,
        "format": shape.file_format,
        "compression": shape.compression,
        "line_encryption": None
        if shape.line_key is None
        else {"key_id": shape.line_key.id, "customer_id": shape.line_key.customer_id},
        "encryption": ENCRYPTION if shape.encrypted else None,
        "header": shape.header and shape.file_format in ("csv", "xlsx"),
        "schema": {
            "columns": [{"name": column.name, "type": column.type.value} for column in selection.columns],
            "key": list(selection.table.key),
        },
        "query": vql,
        "rows": state.rows,
        "bytes": sum(part["bytes"] for part in parts),
        "parts": parts,
        "invalid_rows_left_out": state.left_out,
        "spreadsheet_safe": selection.spreadsheet_safe,
        "consistent": True,
        "restarted": state.restarted,
        "snapshot": {"id": state.snapshot.id, "taken_at": state.snapshot.taken_at.isoformat()},
        "created": state.finished_at,
    }


def _part(job: RunContext, state: ExportState, one: FileState) -> dict[str, Any]:
    written = _written(one)
    return {
        "key": relative_key(job.job.tenant, ObjectRef(state.bucket, one.key)),
        "rows": one.rows,
        "bytes": written.stored_bytes,
        "sha256": written.stored_sha256,
        "plain_bytes": written.plain_bytes,
        "plain_sha256": written.plain_sha256,
        **({} if written.sealed is None else {"sealed": asdict(written.sealed)}),
    }


def _to_deliver(
    job: RunContext, shape: Shape, state: ExportState, manifest: ObjectRef, body: bytes
) -> list[tuple[ObjectRef, SinkFile]]:
    """The files in their order, then the manifest; as they are stored."""

    def taken(ref: ObjectRef, content_type: str, size_bytes: int, sha256: str, rows: int | None) -> SinkFile:
        return SinkFile(relative_key(job.job.tenant, ref), content_type, size_bytes, sha256, rows)

    files = []
    for one in state.files:
        ref, written = ObjectRef(state.bucket, one.key), _written(one)
        sha256 = written.stored_sha256 if written.sealed is None else written.sealed.sha256
        files.append((ref, taken(ref, shape.stored_type, written.object_bytes, sha256, one.rows)))
    told = taken(manifest, "application/json", len(body), hashlib.sha256(body).hexdigest(), None)
    return [*files, (manifest, told)]


def _written(one: FileState) -> Any:
    if one.written is None:
        raise ValueError(f"{one.key} is not written")
    return one.written


def _record(job: RunContext, shape: Shape, state: ExportState, manifest: ObjectRef, manifest_bytes: int) -> None:
    """The artifacts' rows, and with them the guard; files elsewhere have none: they are not ours to give out."""
    kept = [] if state.elsewhere else [_artifact(job, state, one, shape.content_type) for one in state.files]
    if not state.elsewhere:
        at = ArtifactKind.MANIFEST
        kept.append(_row(job, at, at, manifest, content_type="application/json", size_bytes=manifest_bytes))
    with job.sessions.begin() as session:
        for artifact in kept:
            artifacts.put(session, job.job.tenant, artifact)
        jobs.advance(
            session,
            job.job,
            rows_done=state.rows,
            rows_total=state.rows,
            bytes_done=state.plain_bytes,
            bytes_total=state.plain_bytes,
            stage="exported",
        )


def _artifact(job: RunContext, state: ExportState, one: FileState, content_type: str) -> Artifact:
    ref, written = ObjectRef(state.bucket, one.key), _written(one)
    return _row(
        job,
        f"export/{one.key}",
        ArtifactKind.EXPORT,
        ref,
        content_type=content_type,
        size_bytes=written.stored_bytes,
        sha256=written.stored_sha256,
        rows=one.rows,
        sealed_bytes=None if written.sealed is None else written.sealed.bytes,
    )


def _row(job: RunContext, called: str, kind: ArtifactKind, ref: ObjectRef, **facts: Any) -> Artifact:
    return Artifact(
        id=uuid5(job.id, called),
        job_id=job.id,
        tenant=job.job.tenant,
        kind=kind,
        name=ref.key.rsplit("/", 1)[-1].removesuffix(SEALED_SUFFIX if facts.get("sealed_bytes") else ""),
        ref=ref,
        expires_at=job.clock.now() + timedelta(seconds=job.settings.artifact_ttl_s),
        **facts,
    )


def _result(job: RunContext, shape: Shape, state: ExportState, manifest: dict[str, Any], ref: ObjectRef) -> Result:
    rows, parts = state.rows, manifest["parts"]
    said = ("format", "compression", "encryption", "bytes", "consistent", "restarted", "invalid_rows_left_out")
    return Result(
        {
            "s3_bucket": state.bucket or None,
            "sink": shape.sink,
            "s3_key": parts[0]["key"],
            "manifest_key": relative_key(job.job.tenant, ref),
            "rows": rows,
            "parts": len(parts),
            "columns": [column["name"] for column in manifest["schema"]["columns"]],
            "sha256": parts[0]["sha256"] if len(parts) == 1 else None,
            "snapshot": state.snapshot.taken_at.isoformat(),
            **{name: manifest[name] for name in said},
            **({} if shape.delivery is None else {"provider": shape.delivery.provider, "delivered": state.delivered}),
        },
        message=f"exported {rows} row{'' if rows == 1 else 's'} to {parts[0]['key']}"
        + (f" and {len(parts) - 1} more files" if len(parts) > 1 else ""),
        outcome=Outcome.SUCCESS if rows else Outcome.EMPTY,
    )
