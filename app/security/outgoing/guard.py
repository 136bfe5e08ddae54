"""The one way out: a call that reaches public addresses alone, in a bounded time and with a bounded answer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from requests import Response
from urllib3.exceptions import HTTPError

from app.domain.errors import JobError
from app.domain.job_types import JobContext
from app.security.outgoing.addresses import Address, Network, Resolve, plain, refusal, resolve
from app.security.outgoing.calls import Call, Reply, redirected
from app.security.outgoing.faults import explained
from app.security.outgoing.line import Line
from app.security.outgoing.targets import FORBIDDEN, USUAL_PORTS, Target, forbidden, parse_target
from app.security.outgoing.wire import PinnedSession
from config.settings import Settings

log = logging.getLogger(__name__)

_LOOK_UP_S: Final = 10.0
_EVERYWHERE: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))


class Outgoing:
    """Makes calls to addresses that users chose.

    A name is resolved once, every address it has must be allowed, and the connection goes to one of those very
    addresses, so that a name server that answers otherwise the next time is not asked.

    Args:
        private_networks: What may be reached although it is not public.
        ports: Ports beside 80, 443, 8080 and 8443.
        resolve: Gives the addresses of a name.
        ca_file: Authorities whose certificates are good, instead of the public ones.
    """

    def __init__(
        self,
        *,
        private_networks: Sequence[Network] = (),
        ports: frozenset[int] = frozenset(),
        resolve: Resolve = resolve,
        ca_file: Path | None = None,
    ) -> None:
        self._private_networks = tuple(private_networks)
        self._ports = USUAL_PORTS | ports
        self._resolve = resolve
        self._ca_file = ca_file

    @classmethod
    def from_settings(cls, settings: Settings) -> Outgoing:
        """As the installation allows."""
        return cls(private_networks=settings.private_networks, ports=settings.outgoing_ports)

    @classmethod
    def to_configured(cls, url: str, *, ca_file: Path | None) -> Outgoing:
        """For the operator's own server: calls to ``url`` alone, wherever its name leads.

        Raises:
            PermanentError: It is no URL (``ERR_URL_FORBIDDEN``).
        """
        return cls(private_networks=_EVERYWHERE, ports=frozenset({parse_target(url).port}), ca_file=ca_file)

    @contextmanager
    def send(self, call: Call, *, job: JobContext | None = None) -> Iterator[Reply]:
        """Make ``call``; its answer is open inside the ``with``, and every status is an answer.

        Args:
            job: Ends the call when it is asked to stop, by raising what its ``check`` raises.
        Raises:
            PermanentError: The URL may not be called (``ERR_URL_FORBIDDEN``).
            JobError: The certificate is not good (``http.certificate_refused``).
            TransientError: No connection, or no whole answer in time.
        """
        line = Line(call.timeout_s, job)
        with line.watched(), ExitStack() as stack:
            try:
                target, response = self._follow(call, line, stack)
            except JobError as error:
                if error.code == FORBIDDEN:
                    log.warning("outgoing.refused", extra={"job_id": str(job.id) if job else None, "error": str(error)})
                raise
            yield Reply(response, target, line, call.max_response_bytes)

    def addresses_of(self, url: str) -> Sequence[Address]:
        """What a client of another kind may dial for ``url``; it must dial these and ask no name server itself.

        Raises:
            PermanentError: The URL may not be called (``ERR_URL_FORBIDDEN``).
            TransientError: Its name has no address now.
        """
        line = Line(_LOOK_UP_S, None)
        with line.watched():
            return self._addresses(parse_target(url), line)

    def _follow(self, call: Call, line: Line, stack: ExitStack) -> tuple[Target, Response]:
        for _ in range(call.max_redirects + 1):
            target = parse_target(call.url)
            addresses = self._addresses(target, line)
            response = self._begin(call, target, addresses, line, stack)
            if call.max_redirects == 0:
                return target, response
            following = redirected(call, target, response.status_code, response.headers.get("Location"))
            if following is None:
                return target, response
            call = following
        raise JobError(f"{target.origin} led to more than {call.max_redirects} redirects", code="http.redirects")

    def _begin(
        self, call: Call, target: Target, addresses: Sequence[Address], line: Line, stack: ExitStack
    ) -> Response:
        session = stack.enter_context(PinnedSession(lambda: line.dial(addresses, target.port), self._ca_file))
        try:
            response: Response = session.begin(
                call.method, target.url, dict(call.headers), call.body, timeout_s=line.left_s
            )
        except (OSError, ValueError, HTTPError, HTTPException) as error:
            line.check()
            # The cause's own text holds the path and the query, which may be secret.
            raise explained(error, target) from None
        stack.callback(response.close)
        return response

    def _addresses(self, target: Target, line: Line) -> Sequence[Address]:
        if target.port not in self._ports:
            known = ", ".join(map(str, sorted(self._ports)))
            raise forbidden(
                f"port {target.port} may not be called, only {known}", "HAULIER_OUTGOING_PORTS names further ports."
            )
        found = [plain(address) for address in self._resolved(target, line)]
        for address in found:
            reason = refusal(address, self._private_networks)
            if reason is not None:
                raise forbidden(
                    reason
                    if str(address) == target.host
                    else f"{target.host} leads to an address that may not be called: {reason}",
                    "HAULIER_ALLOW_PRIVATE_HOSTS names private networks that may be called.",
                )
        return found

    def _resolved(self, target: Target, line: Line) -> Sequence[Address]:
        try:
            return [ip_address(target.host)]
        except ValueError:
            pass  # it is a name
        try:
            return line.wait_for(lambda: self._resolve(target.host, target.port))
        except OSError as error:
            raise explained(error, target) from None
        except UnicodeError:
            raise forbidden(f"{target.host!r} is no name that can be looked up") from None
