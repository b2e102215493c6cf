"""Which fronts use an application: each writes itself down in the cluster, none is special.

A front's entry is a key in the store of Ray's head that names the front's job. Ray knows which jobs
live, so a front that was killed counts no more, and nobody compares clocks.

NOTE: the store and the list of jobs are not in Ray's public API; tests notice when they change.
"""

import ray
from ray.experimental import internal_kv

_NAMESPACE = b"tandem"


def enter(application: str) -> None:
    """Writes this process down as a front of the application."""
    internal_kv._internal_kv_put(_key(application), b"", namespace=_NAMESPACE)


def leave(application: str) -> int:
    """Takes this process off the list; returns how many fronts are left.

    Of several that leave at once, the last one sees none.
    """
    internal_kv._internal_kv_del(_key(application), namespace=_NAMESPACE)
    return len(living(application))


def living(application: str) -> list[str]:
    """Jobs of the fronts that use the application; forgets those that were killed."""
    prefix = f"{application}/"
    keys = internal_kv._internal_kv_list(prefix, namespace=_NAMESPACE)
    entered = {key.decode().removeprefix(prefix): key for key in keys}
    alive = {job["JobID"] for job in ray._private.state.jobs() if not job["IsDead"]}
    for job in entered.keys() - alive:
        internal_kv._internal_kv_del(entered[job], namespace=_NAMESPACE)
    return sorted(entered.keys() & alive)


def _key(application: str) -> bytes:
    return f"{application}/{ray.get_runtime_context().get_job_id()}".encode()
