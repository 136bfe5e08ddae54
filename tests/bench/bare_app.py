"""The floor of ``POST /v1/jobs``: a bare Flask handler that does one INSERT and one LPUSH."""

from __future__ import annotations

import json
import os
import threading
import uuid
from typing import Any

import psycopg2
import redis
from flask import Flask, request

app = Flask(__name__)
_redis = redis.Redis.from_url(os.environ["HAULIER_REDIS_URL"])
_local = threading.local()


def _cursor() -> Any:
    if not hasattr(_local, "connection"):
        _local.connection = psycopg2.connect(os.environ["HAULIER_DATABASE_URL"])
        _local.connection.autocommit = True
    return _local.connection.cursor()


@app.post("/jobs")
def jobs() -> Any:
    """Keep a job and tell a worker."""
    body = request.get_json()
    job_id, payload = str(uuid.uuid4()), json.dumps(body["config"])
    _cursor().execute(
        "INSERT INTO bare_jobs (id, type, status, payload) VALUES (%s, %s, 'queued', %s)",
        (job_id, body["type"], payload),
    )
    _redis.lpush("bare", job_id + payload)
    return {"id": job_id, "status": "queued"}, 201
