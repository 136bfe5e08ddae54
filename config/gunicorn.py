"""gunicorn's settings, derived from ours."""

from config.process import settings as _settings

_s = _settings()
bind = f"{_s.host}:{_s.port}"
worker_class = "gthread"
workers = _s.web_processes
threads = _s.web_threads
timeout = 60
graceful_timeout = 30
keepalive = 30
max_requests = 0
preload_app = False
accesslog = None
errorlog = "-"
loglevel = "warning"
limit_request_line = 8190
worker_tmp_dir = "/dev/shm"  # noqa: S108 - a heartbeat file that must not wait for a disk
