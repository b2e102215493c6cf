"""How many replicas there are, what each may hold, and when there are more or fewer."""

from typing import Any

from vision_service.config import VisionConfig

# Calls a replica works on or holds at once: enough to fill a batch while the last one runs.
MAX_ONGOING_REQUESTS = 32

HEALTH_CHECK_PERIOD_S = 1.0
HEALTH_CHECK_TIMEOUT_S = 30.0  # a replica that computes on every core answers late
SHUTDOWN_S = 5.0

# With `max_replicas`: calls per replica that Serve scales towards, and how long the load must
# have been higher or lower. A new replica takes seconds to load, so it is not ended lightly.
TARGET_ONGOING_REQUESTS = 4
UPSCALE_DELAY_S = 5.0
DOWNSCALE_DELAY_S = 60.0


def deployment_options(config: VisionConfig) -> dict[str, Any]:
    """What Serve is told about the replicas; the names are Serve's."""
    return {
        "name": "encoder",
        # Replicas share the cores by their thread counts, not by Ray's bookkeeping.
        "ray_actor_options": {"num_cpus": 0, "num_gpus": config.gpus},
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "max_queued_requests": config.max_queued_requests,
        "health_check_period_s": HEALTH_CHECK_PERIOD_S,
        "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_S,
        "graceful_shutdown_timeout_s": SHUTDOWN_S,
        **_replica_count(config),
    }


def _replica_count(config: VisionConfig) -> dict[str, Any]:
    if config.max_replicas is None:
        return {"num_replicas": config.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": config.replicas,
            "max_replicas": config.max_replicas,
            "target_ongoing_requests": TARGET_ONGOING_REQUESTS,
            "upscale_delay_s": UPSCALE_DELAY_S,
            "downscale_delay_s": DOWNSCALE_DELAY_S,
        }
    }
