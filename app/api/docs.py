"""``/docs``: the OpenAPI document in a viewer that comes with Haulier and asks nobody else for anything."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flask import Blueprint, Response, redirect, send_from_directory, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

from app.domain.error_codes import REMEDIES
from app.domain.errors import NotFoundError
from app.web.current import services

blueprint = Blueprint("docs", __name__)

_STATIC: Final = Path(__file__).parent / "static"
_DAY_S: Final = 86_400
# The viewer may load itself and call this server; nothing may come from or go to another.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/")
def root() -> AnyResponse:
    """Lead a browser to the viewer."""
    return redirect(url_for("docs.viewer"))


@blueprint.get("/docs")
def viewer() -> Response:
    """The viewer, unless the installation turned it off."""
    if not services().settings.openapi_viewer:
        raise NotFoundError("the viewer is turned off here", hint="The document itself is at /openapi.json.")
    response = Response((_STATIC / "docs.html").read_text(), mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@blueprint.get("/docs/errors")
def errors() -> Response:
    """Every error code and what to do about it; where the ``type`` of each points."""
    rows = Markup().join(
        Markup('<tr id="{0}"><td><a href="#{0}">{0}</a></td><td>{1}</td></tr>').format(code, remedy)
        for code, remedy in REMEDIES.items()
    )
    page = (_STATIC / "errors.html").read_text().replace("<!-- rows -->", rows)
    response = Response(page, mimetype="text/html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@blueprint.get("/docs/static/<path:name>")
def static(name: str) -> Response:
    """The viewer's files."""
    return send_from_directory(_STATIC, name, max_age=_DAY_S)
