"""TLS, at both ends: the certificate that clients see, and the authorities that providers are believed by."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

from trimtab_router import file_marks

log = logging.getLogger("trimtab.router")


class FilesError(Exception):
    """A certificate, key or list of authorities that can't be used; the message names the files."""


class Certificate:
    """The listener's certificate. Its files are looked at again and again, and taken over when they have changed.

    Args:
        certificate: PEM file, with the chain behind the certificate.
        key: PEM file of the private key.

    Attributes:
        context: for the listener; handshakes from the last reload on use what was loaded then.

    Raises:
        FilesError: if the files can't be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._seen: list[file_marks.Mark] = []
        self.context = _listening()
        self._load(self.context)
        self._seen = self._mark()

    def look(self) -> bool:
        """Take over changed files; what can't be used is reported once, and the last good certificate stays."""
        try:
            mark = self._mark()
            if mark == self._seen:
                return False
            self._seen = mark
            # A trial first: a context is changed step by step, and half of a pair would break every handshake.
            self._load(_listening())
            self._load(self.context)
        except (OSError, FilesError) as error:
            log.error("%s; the last good certificate stays in use", error)  # noqa: TRY400 (one line says it)
            return False
        log.info("certificate %s is in use", self._files[0])
        return True

    async def watch(self, poll_seconds: float) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(poll_seconds)
            self.look()

    def _mark(self) -> list[file_marks.Mark]:
        return [file_marks.of(path) for path in self._files]

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self._files
        try:
            context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise FilesError(f"TLS: {certificate} and {key} are no certificate and its key: {error.reason}") from error
        except OSError as error:
            raise FilesError(f"TLS: {certificate} and {key}: {error.strerror}") from error


def _listening() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def asking(authorities: Path | None) -> ssl.SSLContext:
    """A context to ask providers with: names and certificates are checked, TLS 1.2 at least.

    Args:
        authorities: PEM file of those to believe besides the system's; None for the system's alone.

    Raises:
        FilesError: if the file can't be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authorities is not None:
        try:
            context.load_verify_locations(cafile=authorities)
        except ssl.SSLError as error:
            raise FilesError(f"TLS: {authorities} holds no certificates: {error.reason}") from error
        except OSError as error:
            raise FilesError(f"TLS: {authorities}: {error.strerror}") from error
    return context
