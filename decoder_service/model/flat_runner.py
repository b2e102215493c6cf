"""Runs steps through Tandem's kernels: rows of any number of sequences side by side in one run.

Every run names its sequences: slot, new tokens, tokens there already. So there is one graph, the
cache's buffers are bound whole and once, and nothing is laid out for one kind of step or another.
"""

from collections.abc import Sequence

from decoder_service.cache.kv_cache import KvCache
from decoder_service.model.batch import Segments
from decoder_service.model.bound_runs import BoundRun, BoundRuns, Shape
from decoder_service.model.sessions import GraphSession
from protos.bundle.manifest import Bundle


class FlatRunner:
    """`batch.Runner` over a graph of Tandem's kernels.

    Args:
        session: From `sessions.open_graph`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes.
    """

    def __init__(self, session: GraphSession, bundle: Bundle, cache: KvCache) -> None:
        self._runs = BoundRuns(session, bundle.manifest, cache)

    def bind(self, batch: Sequence[Segments]) -> BoundRun:
        """See `batch.Runner.bind`."""
        run = self._runs.get(Shape.of(batch))
        run.fill(batch)
        return run
