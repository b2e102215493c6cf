"""Calls of replicas that a caller's silence does not hold up.

Serve asks replicas by a stream whose first message says whether the call is taken. At its end Ray
waits, in the one thread that all calls of a replica share, until the caller has got each message:
a front whose host is off the network would keep every replica it has called from answering anyone,
until Ray gives its host up. Ordinary calls have no such end. What they lack, a refusal by a replica
that has enough calls, the router's own count and the replica's bounded queue are for.

NOTE: a private name of the release that pyproject.toml pins, as in replicas/lean_node.py.
"""

import functools
from typing import Any

from ray.serve._private.router import AsyncioRouter

STRICT = "enable_strict_max_ongoing_requests"


def use_plain_calls() -> None:
    """Makes this process's calls of replicas ordinary ones, those of handles made from now on."""
    begin = AsyncioRouter.__init__

    @functools.wraps(begin)
    def plain(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **{**options, STRICT: False})

    AsyncioRouter.__init__ = plain
