"""What can go wrong in the operator, as one tree. Adapters translate libraries' errors into these, cause kept.

::

    OperatorError
    ├── ClusterError            the API server
    │   ├── ClusterUnreachableError  no answer, or it can't serve now: hold everything, try again
    │   ├── AccessDeniedError        401 or 403: a role or token is missing
    │   ├── KindMissingError         our CRDs are not installed
    │   ├── ConflictError            409: somebody wrote in between
    │   ├── NotFoundError            404: the object is gone
    │   │   └── NamespaceEndsError   403 of a namespace under deletion: nothing new fits in it
    │   └── RefusedError             the API server rejected one object: 400, 413, 422
    ├── ObjectsRefusedError          some objects of a cycle were not applied; the others were
    ├── DeposedError                 a higher epoch was seen: stop acting at once
    └── MetricsError            Prometheus did not answer usefully
"""

from __future__ import annotations

from collections.abc import Mapping


class OperatorError(Exception):
    """Root of all errors that the operator raises on purpose. The message is one line for people."""


class ClusterError(OperatorError):
    """A call to the API server failed."""


class ClusterUnreachableError(ClusterError):
    """The API server gave no usable answer; nothing may be concluded from it."""


class AccessDeniedError(ClusterError):
    """The API server knows us not, or does not allow this."""


class KindMissingError(ClusterError):
    """The API server does not serve a kind that Trimtab needs."""


class ConflictError(ClusterError):
    """The object changed in between."""


class NotFoundError(ClusterError):
    """The object does not exist."""


class NamespaceEndsError(NotFoundError):
    """The namespace is being deleted: it takes nothing new, and what is in it goes by itself."""


class RefusedError(ClusterError):
    """The API server rejected the object as it is."""


class ObjectsRefusedError(OperatorError):
    """Some objects could not be applied.

    Attributes:
        reasons: ``Kind namespace/name`` → why.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("; ".join(f"{name}: {why}" for name, why in sorted(self.reasons.items())))


class DeposedError(OperatorError):
    """Another leader with a higher epoch acts; this one must not.

    Attributes:
        epoch: the higher one.
    """

    def __init__(self, message: str, *, epoch: int) -> None:
        self.epoch = epoch
        super().__init__(message)


class MetricsError(OperatorError):
    """Prometheus failed, timed out or answered nonsense."""
