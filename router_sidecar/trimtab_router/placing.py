"""Where a request belongs: by its session, else by how its prompt begins. For tiers of more than one endpoint.

What a client names comes first (``X-Trimtab-Session``, ``prompt_cache_key``, ``user``): a conversation grows, and its
beginning is in one engine's cache. Otherwise prompts that begin alike meet, as those of one application do. Tenants
never share a place, as they share no cache.
"""

from __future__ import annotations

from trimtab_core.routing import affinity

from trimtab_router import admission
from trimtab_router.request import Request

_SESSION = b"x-trimtab-session"
_PROMPTS = (b'"messages"', b'"prompt"', b'"input"')
_LONGEST_NAME = 256


def place(request: Request, admitted: admission.Admission) -> int | None:
    """The request's place on every ring; None if it may go anywhere.

    Args:
        request: of the client.
        admitted: what is known of it.
    """
    tenant = admitted.tenant.encode()
    session = request.headers.get(_SESSION) or admitted.envelope.session
    if session:
        return affinity.key(session[:_LONGEST_NAME], tenant)
    body = request.body
    if len(body) < affinity.PREFIX_BYTES:
        return None
    for name in _PROMPTS:
        at = body.find(name)
        if at >= 0:
            beginning = body[at : at + affinity.PREFIX_BYTES]
            return affinity.key(beginning, tenant) if len(beginning) == affinity.PREFIX_BYTES else None
    return None
