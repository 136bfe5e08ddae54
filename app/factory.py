"""Makes the Flask app: registers blueprints, nothing else."""

from __future__ import annotations

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

import haulier
from app.api import (
    artifacts,
    attempts,
    batches,
    bulk,
    deliveries,
    docs,
    downloads,
    events,
    failed_records,
    health,
    import_batches,
    inference,
    job_files,
    job_types,
    jobs,
    keys,
    limits,
    line_keys,
    pipelines,
    progress,
    queries,
    queues,
    records,
    reverts,
    runs,
    schedules,
    sinks,
    statistics,
    tables,
    uploads,
    workbooks,
)
from app.api.deliveries import ResultLineSchema
from app.api.openapi import HaulierApi
from app.bootstrap import Services, build_services
from app.dialects.connectra import routes as connectra
from app.telemetry.logs import set_up_logging
from app.web import errors, gate, traced
from app.web import limits as request_limits
from app.web.current import attach
from config.process import settings as settings_of_process
from config.settings import Settings

API_BLUEPRINTS = (
    jobs,
    bulk,
    batches,
    deliveries,
    progress,
    pipelines,
    runs,
    schedules,
    events,
    attempts,
    failed_records,
    reverts,
    import_batches,
    artifacts,
    downloads,
    job_files,
    job_types,
    tables,
    workbooks,
    inference,
    records,
    queries,
    uploads,
    sinks,
    line_keys,
    keys,
    queues,
    limits,
    statistics,
    health,
)

DIALECTS = (connectra,)


def create_app(settings: Settings | None = None, services: Services | None = None) -> Flask:
    """The web application.

    Args:
        settings: Those of the process when not given.
        services: Built from ``settings`` when not given.
    """
    settings = settings or settings_of_process()
    set_up_logging(settings)
    app = Flask("haulier", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body_bytes,
        API_TITLE="Haulier",
        API_VERSION=haulier.__version__,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "security": [{"ApiKey": []}, {"Bearer": []}],
            "components": {
                "securitySchemes": {
                    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    "Bearer": {"type": "http", "scheme": "bearer"},
                }
            },
        },
    )
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]  # Flask's own way to wrap it
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of the default provider
    pool_size = settings.web_threads // 2 + 4
    attach(app, services or build_services(settings, application_name="haulier web", pool_size=pool_size))
    errors.register(app)
    traced.register(app)
    request_limits.register(app, settings)
    gate.register(app)
    api = HaulierApi(app)
    api.spec.components.schema("ResultLine", schema=ResultLineSchema)
    for module in API_BLUEPRINTS:
        api.register_blueprint(module.blueprint)
    app.register_blueprint(docs.blueprint)
    app.register_blueprint(statistics.metrics_blueprint)
    for dialect in DIALECTS:
        app.register_blueprint(dialect.blueprint)
        errors.use_form(app, dialect.blueprint.name, dialect.error_form)
    errors.register(app)
    return app
