"""The settings: read once, checked at start, frozen, and passed on.

Every setting is ``HAULIER_<NAME>``; the names document 004 gives (``PARALLEL_JOBS``, ``S3_BUCKET`` and four more) are
also taken without the prefix. A command's flag wins over the environment, the environment over ``.env``, ``.env`` over
the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

PREFIX: Final = "HAULIER_"

WITHOUT_PREFIX: Final = frozenset(
    {
        "parallel_jobs",
        "batch_size_for_insertion",
        "ticker_interval_minutes",
        "job_in_queue_size",
        "s3_bucket",
        "s3_upload_file_path_prefix",
    }
)


LEAST_MASTER_KEY_CHARACTERS: Final = 32


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the text names each one, where it came from and what was expected."""


class Settings(BaseModel):
    """What a Haulier process is told from outside. Immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Stores
    database_url: SecretStr = SecretStr("postgresql://haulier@127.0.0.1:8604/haulier")
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:8603/0")
    s3_endpoint: str | None = Field(None, description="None means AWS.")
    s3_public_endpoint: str | None = Field(
        None, description="Endpoint written into presigned URLs; default s3_endpoint."
    )
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_region: str = "us-east-1"
    s3_bucket: str = "haulier"
    s3_allowed_buckets: frozenset[str] = frozenset()
    s3_upload_file_path_prefix: str = "uploads"
    presign_ttl_s: int = Field(43_200, ge=1, le=604_800)
    upload_ttl_s: int = Field(86_400, ge=1, le=604_800)
    s3_server_side_encryption: Literal["AES256", "aws:kms"] | None = Field(
        None, description="Asked of S3 for every object that Haulier writes; None: as the bucket has it."
    )
    s3_kms_key_id: str | None = None
    cdn_base_url: str | None = Field(
        None, pattern="^https?://[^/?#]+(/[^?#]*)?$", description="A CDN before the web server: links lead there."
    )

    secret_key: SecretStr | None = Field(
        None, description="Signs manifests of exports; made by `up`. Without one they are not signed."
    )
    master_key: SecretStr | None = Field(
        None, description="Seals files and the credentials of sinks; made by `up`. 32 characters or more."
    )
    former_master_keys: tuple[SecretStr, ...] = Field(
        (), description="Those that still open what they sealed, separated by commas."
    )
    export_root: Path | None = Field(
        None, description="Folder below which exports may write, a folder of its own for each tenant; None: nowhere."
    )

    # Web
    host: str = "127.0.0.1"
    port: int = Field(8600, ge=0, le=65_535)
    web_processes: int = Field(2, ge=1)
    web_threads: int = Field(32, ge=4, description="Per web process; half of them at most hold waits and streams.")
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)
    max_lines_bytes: int = Field(2**30, ge=1024, description="Of a batch that is sent a line a payload.")
    trusted_proxies: int = Field(0, ge=0, description="How many proxies set X-Forwarded-For.")
    api_key_cache_s: float = Field(2.0, ge=0, description="How long a revoked key may still work.")
    rate_limit_per_minute: int = Field(0, ge=0, description="Requests a key and minute; 0 means no limit.")
    openapi_viewer: bool = True
    allow_private_hosts: tuple[str, ...] = ()
    outgoing_ports: frozenset[int] = Field(
        frozenset(), description="Ports that outgoing calls may use beside 80, 443, 8080 and 8443."
    )

    # Queues, workers and the engine
    job_in_queue_size: int = Field(100, ge=1, description="Admitted jobs waiting per queue and priority class.")
    parallel_jobs: int | None = Field(
        None, ge=1, description="Slots of the data pool; default 4, under `up` one a core."
    )
    ticker_interval_minutes: float = Field(5.0, gt=0, description="Upper bound of the engine's full fall-back scan.")
    lease_s: float = Field(20.0, ge=1, description="A worker slot that is silent this long is lost.")
    engine_tick_s: float = Field(0.2, gt=0)
    engine_term_s: float = Field(5.0, ge=1)
    max_rescues: int = Field(5, ge=0, description="Workers a job may lose without checkpoint progress.")
    stall_timeout_s: float = Field(600.0, gt=0)
    default_attempt_timeout_s: float = Field(43_200.0, gt=0)
    kill_grace_s: float = Field(30.0, ge=0, description="From a time-out to the hard kill.")
    job_types_package: str = "tasks.types"
    redbeat_key_prefix: str = "haulier:redbeat:"

    # Data plane
    batch_rows: int = Field(20_000, ge=1, description="Rows per COPY of a native import.")
    batch_bytes: int = Field(
        5 * 2**20, ge=1, description="A batch of an import ends early with the record that fills so many bytes."
    )
    max_batch_bytes: int = Field(
        32 * 2**20, ge=1, description="The same for imports that say how many rows they want in a batch."
    )
    batch_size_for_insertion: int | None = Field(
        None, ge=1, description="Rows per batch of Connectra's jobs; default 500."
    )
    lanes: int = Field(2, ge=1, le=8, description="Connections that write side by side in one import.")
    bulk_path_bytes: int = Field(
        8 * 2**20,
        ge=0,
        description="A file of this size that fills an empty table is loaded before its secondary indexes are built; "
        "0: none is.",
    )
    max_field_bytes: int = Field(1_048_576, ge=1024)
    max_columns: int = Field(1_600, ge=1)
    max_source_bytes: int = Field(100 * 2**30, ge=1, description="After decompression.")
    max_compression_ratio: float = Field(200.0, ge=1)
    import_root: str | None = Field(
        None, description="Folder of this machine whose files jobs may read; other tenants' below t/<tenant>/."
    )
    max_workbook_bytes: int = Field(2**30, ge=1024, description="Of an XLSX file, after decompression.")
    max_workbook_cells: int = Field(10_000_000, ge=1, description="Rows times columns of a sheet.")
    workbook_memory_mb: int = Field(2_048, ge=256, description="Of the process that reads a sheet.")
    clamd: str | None = Field(
        None, description="Scans files for viruses: unix:///path of its socket, or tcp://host:port."
    )
    url_timeout_s: float = Field(3600.0, gt=0, le=86_400, description="For one connection to a URL of an import.")
    ledger_raw_rows: int = Field(100_000, ge=0, description="Failed rows kept with their text; later ones are counted.")
    error_budget_rate: float = Field(0.5, ge=0, le=1)
    error_budget_after_rows: int = Field(10_000, ge=1)
    statement_timeout_s: float = Field(30.0, gt=0, description="For record queries of the API.")
    query_job_rows: int = Field(100_000, ge=0, description="A query that gives more, by estimate, becomes a job.")
    query_job_bytes: int = Field(50_000_000, ge=0, description="The same for the bytes of its answer.")
    query_job_cost: float = Field(1_000_000.0, ge=0, description="The same for the planner's cost.")
    query_job_load: float = Field(
        4.0, ge=0, description="While the machine's load per processor is above it, queries become jobs."
    )
    query_streams: int = Field(8, ge=1, description="Queries that a web process answers at once, at most.")
    query_stream_timeout_s: float = Field(30.0, gt=0, description="For the whole answer of a query that is no job.")

    # Search mirror
    mirror_url: str | None = Field(
        None,
        pattern="^https?://[^/?#@]+(/[^?#]*)?$",
        description="An Elasticsearch or OpenSearch server that imported tables are mirrored to; None: no mirror.",
    )
    mirror_user: str | None = None
    mirror_password: SecretStr | None = None
    mirror_api_key: SecretStr | None = Field(None, description="Of Elasticsearch, instead of a user.")
    mirror_ca_file: Path | None = Field(
        None, description="Certificates of the authority that the server's own is signed by; None: the public ones."
    )
    mirror_prefix: str = Field(
        "haulier", pattern="^[a-z][a-z0-9_]{0,39}$", description="Indexes are called prefix-tenant-table."
    )
    mirror_timeout_s: float = Field(30.0, gt=0, le=600, description="For one request to it.")
    mirror_patience_s: float = Field(
        20.0, ge=0, le=600, description="How long a job asks again before it leaves the mirror behind."
    )
    mirror_bulk_bytes: int = Field(5 * 2**20, ge=1024, description="Documents of one request.")

    # Retention
    idempotency_ttl_s: int = Field(86_400, ge=60)
    inline_result_bytes: int = Field(
        65_536, ge=0, le=1_048_576, description="An export up to this size stands in its job's result too."
    )
    artifact_ttl_s: int = Field(30 * 86_400, ge=60)
    leftover_ttl_s: int = Field(
        2 * 86_400, ge=3_600, description="After so long, what uploads and exports that broke off left is removed."
    )
    job_retention_days: int = Field(
        30,
        ge=0,
        description="Jobs that ended go then, a week's at a time, with their events and ledgers; 0 keeps them.",
    )

    # Logs
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_json: bool = True

    @field_validator("s3_allowed_buckets", "allow_private_hosts", "outgoing_ports", "former_master_keys", mode="before")
    @classmethod
    def _from_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("master_key", "former_master_keys")
    @classmethod
    def _are_long(cls, value: Any) -> Any:
        for key in value if isinstance(value, tuple) else (value,):
            if key is not None and len(key.get_secret_value()) < LEAST_MASTER_KEY_CHARACTERS:
                raise ValueError(f"a master key has at least {LEAST_MASTER_KEY_CHARACTERS} random characters")
        return value

    @field_validator("cdn_base_url", "mirror_url")
    @classmethod
    def _without_slash(cls, value: str | None) -> str | None:
        return value and value.rstrip("/")

    @model_validator(mode="after")
    def _links_are_signed(self) -> Settings:
        if self.cdn_base_url is not None and (self.secret_key or self.master_key) is None:
            raise ValueError("HAULIER_CDN_BASE_URL needs HAULIER_SECRET_KEY, which signs its links")
        return self

    @field_validator("import_root")
    @classmethod
    def _is_absolute(cls, value: str | None) -> str | None:
        if value is not None and not Path(value).is_absolute():
            raise ValueError("expected an absolute path")
        return value

    @field_validator("clamd")
    @classmethod
    def _is_socket(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if not (parts.scheme == "unix" and parts.path) and not (
            parts.scheme == "tcp" and parts.hostname and parts.port
        ):
            raise ValueError("expected unix:///path or tcp://host:port")
        return value

    @field_validator("allow_private_hosts")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("outgoing_ports")
    @classmethod
    def _are_ports(cls, value: frozenset[int]) -> frozenset[int]:
        for port in value:
            if not 1 <= port <= 65_535:
                raise ValueError(f"a port is 1 to 65535, got {port}")
        return value

    @field_validator("s3_upload_file_path_prefix")
    @classmethod
    def _without_slashes(cls, value: str) -> str:
        return value.strip("/")

    @property
    def private_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The private networks that outgoing calls may reach."""
        return tuple(ip_network(network) for network in self.allow_private_hosts)

    @property
    def master_keys(self) -> tuple[str, ...]:
        """The master keys, the one that seals first."""
        current = () if self.master_key is None else (self.master_key,)
        return tuple(key.get_secret_value() for key in (*current, *self.former_master_keys))

    @property
    def data_slots(self) -> int:
        """Slots of the data pool when nothing else is said; document 004's default is 4."""
        return self.parallel_jobs or 4

    @property
    def connectra_batch_rows(self) -> int:
        """Rows per batch of the Connectra dialect's jobs."""
        return self.batch_size_for_insertion or 500


class Sourced(BaseModel):
    """One setting, its value made safe to print, and where it came from."""

    name: str
    value: str
    source: str


def variable_of(name: str) -> str:
    """The environment variable that sets ``name``."""
    return f"{PREFIX}{name.upper()}"


def _found(environ: Mapping[str, str | None], source: str) -> dict[str, tuple[str, str]]:
    found = {}
    for name in Settings.model_fields:
        candidates = [variable_of(name)] + ([name.upper()] if name in WITHOUT_PREFIX else [])
        for variable in candidates:
            value = environ.get(variable)
            if value is not None and value != "":
                found[name] = (value, f"{source} {variable}")
                break
    return found


def _layers(
    environ: Mapping[str, str], env_file: Path | None, flags: Mapping[str, Any] | None
) -> dict[str, tuple[Any, str]]:
    merged: dict[str, tuple[Any, str]] = {}
    if env_file is not None and env_file.is_file():
        merged.update(_found(dotenv_values(env_file), str(env_file)))
    merged.update(_found(environ, "environment"))
    merged.update({name: (value, "flag") for name, value in (flags or {}).items() if value is not None})
    return merged


def from_env(
    environ: Mapping[str, str], *, env_file: Path | None = Path(".env"), flags: Mapping[str, Any] | None = None
) -> Settings:
    """The settings of this process.

    Args:
        environ: The process's environment.
        env_file: A file of ``NAME=value`` lines, below the environment in rank; may be missing.
        flags: Values by setting name that a command's flags gave; ``None`` means not given.
    Raises:
        SettingsError: A value does not fit; every such value is named with its source.
    """
    layers = _layers(environ, env_file, flags)
    try:
        return Settings(**{name: value for name, (value, _) in layers.items()})
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else "cdn_base_url"
            source = layers.get(name, (None, "default"))[1]
            lines.append(f"{variable_of(name)} ({source}): {problem['msg']}, got {problem['input']!r}")
        raise SettingsError("; ".join(lines)) from None


def explain(
    environ: Mapping[str, str], *, env_file: Path | None = Path(".env"), flags: Mapping[str, Any] | None = None
) -> list[Sourced]:
    """Every setting with its effective value (secrets masked) and its source, for ``haulier config show``."""
    settings = from_env(environ, env_file=env_file, flags=flags)
    layers = _layers(environ, env_file, flags)
    return [
        Sourced(name=name, value=_printable(getattr(settings, name)), source=layers.get(name, ("", "default"))[1])
        for name in Settings.model_fields
    ]


def _printable(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "**********"
    if isinstance(value, frozenset | tuple):
        return ",".join(sorted(map(str, value)))
    return "" if value is None else str(value)
