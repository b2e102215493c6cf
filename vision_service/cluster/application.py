"""One application of Ray Serve: what it is made of, and where it stands.

Serve compares what it is given with what runs. The same application again changes nothing; another
number of replicas is reached in place, and another `version` replaces replicas one after another.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.exceptions import ActorAlreadyExistsError
from ray.serve import context
from ray.serve.schema import ApplicationStatus, ReplicaState

DEPLOYMENT = "encoder"

_QUIET = {"log_level": "WARNING", "enable_access_log": False}
_STATUS_POLL_S = 0.1


class NoReplicaStarted(Exception):
    """Serve gave an application up; the text is its reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an application stands: replicas that answer, and whether all that were asked for do."""

    running: int
    complete: bool
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What Serve is asked to run.

    Attributes:
        name: Of the application, unique on a cluster.
        replica: The class that each replica is one of.
        arguments: Of its constructor.
        options: Of the deployment; the names are Serve's.
        version: Replicas of the same one are left as they are; None: never the same.
    """

    name: str
    replica: type
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    version: str | None = None

    def bound(self) -> serve.Application:
        """The application as `serve run` and `serve deploy` take it."""
        deployment = serve.deployment(self.replica).options(**self.options)
        if self.version is not None:
            # NOTE: the public option of that name went away; without it, an application that is
            # deployed a second time replaces all its replicas.
            deployment = deployment.options(version=self.version, _internal=True)
        return deployment.bind(*self.arguments)

    def run(self) -> Any:
        """Starts Serve where it does not run, and the application; returns its handle at once."""
        _start_serve()
        target = serve.RunTarget(
            target=self.bound(), name=self.name, route_prefix=None, logging_config=_QUIET
        )
        [handle] = serve.run_many([target], wait_for_applications_running=False)
        return handle

    def wait(self) -> None:
        """Returns when every replica runs; asks ten times a second, Serve itself would ask once.

        Raises:
            NoReplicaStarted: Serve has given up.
        """
        while True:
            standing = standing_of(self.name)
            if standing is not None and standing.complete:
                return
            if standing is not None and standing.failure is not None:
                raise NoReplicaStarted(standing.failure)
            time.sleep(_STATUS_POLL_S)


def _start_serve() -> None:
    try:
        serve.start(proxy_location="Disabled", logging_config=_QUIET)
    except ActorAlreadyExistsError:
        # Another front has started it between Serve's look for it and its own start.
        serve.start(proxy_location="Disabled", logging_config=_QUIET)


def standing_of(name: str) -> Standing | None:
    """Where an application stands; None where there is none, or it is going away."""
    application = serve.status().applications.get(name)
    if application is None or application.status == ApplicationStatus.DELETING:
        return None
    replicas = [one.replica_states for one in application.deployments.values()]
    failed = application.status == ApplicationStatus.DEPLOY_FAILED
    return Standing(
        running=sum(states.get(ReplicaState.RUNNING, 0) for states in replicas),
        complete=application.status == ApplicationStatus.RUNNING,
        failure=f"no replica started: {application.message}" if failed else None,
    )


def names(prefix: str) -> list[str]:
    """Applications whose names begin so."""
    return [name for name in serve.status().applications if name.startswith(prefix)]


def is_declared(name: str) -> bool:
    """Whether `serve deploy` brought an application, which is then not ours to change."""
    # NOTE: Serve's status does not say it, its REST API does, from these details.
    applications = context._get_global_client().get_serve_details()["applications"]
    return bool(applications.get(name, {}).get("source") == "declarative")


def handle_of(name: str) -> Any:
    """A handle of an application that somebody else brought."""
    return serve.get_app_handle(name)


def delete(name: str) -> None:
    """Ends an application and its replicas; returns when they are gone."""
    serve.delete(name)
