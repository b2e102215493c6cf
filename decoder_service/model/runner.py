"""The runner that fits a loaded graph."""

from decoder_service.cache.kv_cache import KvCache
from decoder_service.model.batch import Runner
from decoder_service.model.flat_runner import FlatRunner
from decoder_service.model.portable_runner import PortableRunner
from decoder_service.model.sessions import GraphSession
from protos.bundle.manifest import Bundle


def make_runner(session: GraphSession, bundle: Bundle, cache: KvCache) -> Runner:
    """Runs a graph of Tandem's kernels, or the portable one.

    Args:
        session: From `sessions.open_graph`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes, of the session's `kv_dtype`.
    """
    if session.graph.kernels == "tandem":
        return FlatRunner(session, bundle, cache)
    return PortableRunner(session, bundle, cache)
