"""The composition root: the one place that chooses implementations."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial

import haulier
from app.broker.bells import CeleryBell, redis_client
from app.broker.ended import RedisEnded
from app.domain.clock import SystemClock
from app.domain.job_types import Registry, discover
from app.domain.ports import ObjectStore
from app.domain.queries import Bounds
from app.persistence.sessions import Sessions, make_sessions, open_engine
from app.scheduling.redbeat import RedBeatTimer
from app.security.master_keys import MasterKeys
from app.security.outgoing.guard import Outgoing
from app.services.amendments import Amendments
from app.services.artifacts import Artifacts
from app.services.attempts import Attempts
from app.services.bulk import Bulk
from app.services.clones import Clones
from app.services.control import Control
from app.services.corrections import Corrections
from app.services.downloads import Downloads
from app.services.failed_records import FailedRecords
from app.services.families import Families
from app.services.feed import Feed
from app.services.firing import Firing
from app.services.health import Health
from app.services.import_batches import ImportBatches
from app.services.inference import Inference
from app.services.job_files import JobFiles
from app.services.job_search import JobSearch
from app.services.jobs import Jobs
from app.services.keys import Keys
from app.services.line_keys import LineKeys
from app.services.links import Links
from app.services.pipelines import Pipelines
from app.services.places import Places
from app.services.queries import Queries
from app.services.reading import Reading
from app.services.records import Records
from app.services.replays import Replays
from app.services.reverts import Reverts
from app.services.row_texts import RowTexts
from app.services.schedules import Schedules
from app.services.sinks import Sinks
from app.services.statistics import Statistics
from app.services.steering import Steering
from app.services.submissions import TenantSubmission
from app.services.tables import Tables
from app.services.templates import Templates
from app.services.uploads import Uploads
from app.services.upserts import Upserts
from app.services.waits import Waits
from app.services.workbooks import Workbooks
from app.storage.s3 import S3Store
from app.storage.sinks import SinkStore
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class WorkerStores:
    """What a worker process needs."""

    objects: ObjectStore
    bell: CeleryBell
    registry: Registry


def worker_stores(settings: Settings) -> WorkerStores:
    """The worker's side; call it after the fork."""
    return WorkerStores(
        objects=S3Store(settings), bell=CeleryBell(settings), registry=discover(settings.job_types_package)
    )


def build_firing(settings: Settings, sessions: Sessions) -> Firing:
    """What an alarm needs."""
    return Firing(sessions, CeleryBell(settings), RedBeatTimer(settings), queue_bound=settings.job_in_queue_size)


@dataclass(frozen=True, slots=True)
class Services:
    """Every use case, for the surfaces."""

    settings: Settings
    sessions: Sessions
    registry: Registry
    keys: Keys
    jobs: Jobs
    control: Control
    amendments: Amendments
    bulk: Bulk
    clones: Clones
    families: Families
    pipelines: Pipelines
    schedules: Schedules
    steering: Steering
    waits: Waits
    upload_places: Places
    feed: Feed
    attempts: Attempts
    health: Health
    tables: Tables
    records: Records
    statistics: Statistics
    job_search: JobSearch
    queries: Queries
    upserts: Upserts
    uploads: Uploads
    artifacts: Artifacts
    downloads: Downloads
    download_places: Places
    links: Links
    job_files: JobFiles
    sinks: Sinks
    line_keys: LineKeys
    failed_records: FailedRecords
    replays: Replays
    corrections: Corrections
    reverts: Reverts
    import_batches: ImportBatches
    inference: Inference
    workbooks: Workbooks


def build_services(settings: Settings, *, application_name: str, pool_size: int) -> Services:
    """Wire the use cases to the real stores."""
    engine = open_engine(
        settings.database_url.get_secret_value(), application_name=application_name, pool_size=pool_size
    )
    sessions = make_sessions(engine)
    registry = discover(settings.job_types_package)
    bell = CeleryBell(settings)
    objects = S3Store(settings)
    clock = SystemClock()
    tables, links = Tables(sessions), Links(settings, clock)
    reading = Reading(sessions, timeout_s=settings.statement_timeout_s)
    places = Places(settings.web_threads // 2)

    def submission(tenant: str) -> TenantSubmission:
        return TenantSubmission(tenant, settings=settings, sessions=sessions, tables=tables, objects=objects)

    jobs = Jobs(sessions, bell, registry, queue_bound=settings.job_in_queue_size, submission=submission)
    row_texts = RowTexts(registry, objects, settings, submission)
    control = Control(sessions, bell)
    families, pipelines = Families(sessions, bell, jobs), Pipelines(sessions, bell, jobs)
    templates = Templates(
        jobs, families, pipelines, queue_of=lambda request: registry.get(request.type).queue_for(request)
    )
    timer = RedBeatTimer(settings)
    firing = Firing(sessions, bell, timer, queue_bound=settings.job_in_queue_size)
    return Services(
        settings=settings,
        sessions=sessions,
        registry=registry,
        keys=Keys(sessions, clock, cache_s=settings.api_key_cache_s),
        jobs=jobs,
        control=control,
        amendments=Amendments(registry, jobs, control),
        clones=Clones(jobs, families, pipelines),
        bulk=Bulk(sessions, bell, jobs),
        families=families,
        pipelines=pipelines,
        schedules=Schedules(sessions, templates, firing, timer),
        steering=Steering(sessions, bell, registry, queue_bound=settings.job_in_queue_size),
        waits=Waits(sessions, places, RedisEnded(settings)),
        # Their own: a sender that falls silent keeps its place, and nobody else's.
        upload_places=Places(max(1, settings.web_threads // 8), hint="Come back after Retry-After."),
        feed=Feed(sessions, places),
        attempts=Attempts(sessions),
        health=Health(sessions, {"redis": lambda: _ping(settings)}, version=haulier.__version__),
        tables=tables,
        records=Records(tables, reading),
        statistics=Statistics(reading, clock),
        job_search=JobSearch(reading),
        queries=Queries(
            tables,
            reading,
            jobs,
            bounds=Bounds(
                settings.query_job_rows, settings.query_job_bytes, settings.query_job_cost, settings.query_job_load
            ),
            # A quarter of the threads at most: their readers may be slow.
            places=Places(
                min(settings.query_streams, max(1, settings.web_threads // 4)), hint="Ask with mode auto or job."
            ),
            stream_timeout_s=settings.query_stream_timeout_s,
            load=load_per_processor,
        ),
        upserts=Upserts(sessions, tables, settings),
        uploads=Uploads(sessions, objects, settings, clock),
        artifacts=Artifacts(sessions, objects, settings, clock),
        downloads=Downloads(sessions, objects, settings, clock, keys=MasterKeys(settings.master_keys)),
        links=links,
        job_files=JobFiles(sessions, links),
        line_keys=LineKeys(sessions, MasterKeys(settings.master_keys)),
        sinks=Sinks(
            sessions,
            MasterKeys(settings.master_keys),
            partial(SinkStore, settings),
            Outgoing.from_settings(settings),
        ),
        download_places=Places(max(1, settings.web_threads // 4), hint="Come back after Retry-After."),
        failed_records=FailedRecords(sessions, row_texts),
        replays=Replays(sessions, jobs, row_texts),
        corrections=Corrections(sessions, objects, submission, row_texts),
        reverts=Reverts(sessions, jobs),
        import_batches=ImportBatches(sessions, tables, clock),
        inference=Inference(objects, settings, submission, Places(2, hint="Come back after Retry-After.")),
        workbooks=Workbooks(sessions, jobs, families, submission),
    )


def load_per_processor() -> float:
    """How many threads want to run for each processor of the machine, over the last minute."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _ping(settings: Settings) -> None:
    client = redis_client(settings, timeout_s=1.0)
    try:
        client.ping()
    finally:
        client.close()
