"""The runner that fits a loaded graph."""

from decoder_service.cache.kv_cache import KvCache
from decoder_service.model.batch import Runner
from decoder_service.model.flat_runner import FlatRunner
from decoder_service.model.lane_runner import LaneRunner
from decoder_service.model.sessions import GraphSession
from protos.bundle.manifest import Bundle


def make_runner(session: GraphSession, bundle: Bundle, cache: KvCache) -> Runner:
    """Runs a graph of Tandem's kernels, or a two-lane one of ONNX Runtime's.

    Args:
        session: From `sessions.open_graph`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes, of the session's `kv_dtype`.
    """
    if session.graph.kernels == "tandem":
        return FlatRunner(session, bundle, cache)
    return LaneRunner(session, bundle, cache)
