"""How many replicas there are, what each may hold, and when there are more or fewer."""

from typing import Any

from vision_service.config import VisionConfig
from vision_service.scaling.placement import most_ahead_s

# Calls a replica works on or holds at once: enough to fill a batch while the last one runs.
MAX_ONGOING_REQUESTS = 32

HEALTH_CHECK_PERIOD_S = 1.0
# Serve replaces a replica that misses three checks in a row: a stopped one within 33 s. One that
# computes on every core answers late, but hardly by ten seconds, three times; and it is avoided by
# the routers long before.
HEALTH_CHECK_TIMEOUT_S = 10.0

# How often replicas say how they are: to the policy, and to the routers. Serve's 10 s are for loads
# that change in minutes. Its environment variables for them are not read by the release pinned.
METRICS_INTERVAL_S = 1.0
LOOK_BACK_S = 2.0
ROUTING_STATS_PERIOD_S = 0.5
ROUTING_STATS_TIMEOUT_S = 3.0

CALM_S = 60.0  # without need of a replica, before it is ended: a new one takes seconds to load

_POLICY = "vision_service.routing.autoscaling:WorkPolicy"
_ROUTER = "vision_service.routing.request_router:EarliestFinishRouter"
_MOST_BACKOFF_S = 0.1  # between two looks whether a replica has become free


def deployment_options(config: VisionConfig) -> dict[str, Any]:
    """What Serve is told about the replicas, as plain data; the names are Serve's."""
    on_gpu = config.device == "cuda"
    return {
        "name": "encoder",
        # Replicas share the cores by their thread counts, not by Ray's bookkeeping.
        "ray_actor_options": {"num_cpus": 0, "num_gpus": config.gpus},
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "max_queued_requests": config.max_queued_requests,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_S,
        # A replica that is to go finishes what it has: no call lasts longer than this.
        "graceful_shutdown_timeout_s": config.encode_timeout_s,
        "graceful_shutdown_wait_loop_s": HEALTH_CHECK_PERIOD_S,
        # A changed deployment starts the new replicas before it ends the old ones, where there is
        # room for both. Serve's default ends the old ones first.
        "max_surge_percent": 0 if on_gpu else 100,
        "request_router_config": _request_router(config),
        **_replica_count(config),
    }


def _request_router(config: VisionConfig) -> dict[str, Any]:
    return {
        "request_router_class": _ROUTER,
        "request_router_kwargs": {"ahead_s": most_ahead_s(config.most_replicas)},
        "request_routing_stats_period_s": ROUTING_STATS_PERIOD_S,
        "request_routing_stats_timeout_s": ROUTING_STATS_TIMEOUT_S,
        "max_backoff_s": _MOST_BACKOFF_S,
    }


def _replica_count(config: VisionConfig) -> dict[str, Any]:
    if config.max_replicas is None:
        return {"num_replicas": config.replicas}
    aims = {
        "fewest": config.replicas,
        "most": config.max_replicas,
        "wait_s": config.target_wait_s,
        "calm_s": CALM_S,
    }
    return {
        "autoscaling_config": {
            "min_replicas": config.replicas,
            # One even where there may be none: a bundle that does not load is known at the start.
            "initial_replicas": max(1, config.replicas),
            "max_replicas": config.max_replicas,
            "metrics_interval_s": METRICS_INTERVAL_S,
            "look_back_period_s": LOOK_BACK_S,
            "aggregation_function": "max",
            "policy": {"policy_function": _POLICY, "policy_kwargs": aims},
            # The policy has delays of its own; Serve's are 30 s up and 600 s down.
            "upscale_delay_s": 0.0,
            "downscale_delay_s": 0.0,
            "downscale_to_zero_delay_s": 0.0,
        }
    }
