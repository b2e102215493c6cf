"""Every service on a host of its own: two vision hosts, two decoder hosts, an edge, a client.

All of them show certificates and tell a token; the gateways read addresses from files.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from deploy.certificates import issue
from tests.chaos import cluster
from tests.chaos.hosts import Host, Network
from tests.chaos.services import TANDEM, Service

KEY = "key-of-the-client"
GATEWAY_ENVIRONMENT = {
    "GATEWAY_API_KEY": KEY,
    "GATEWAY_DIGEST_KEY": "a digest key of both gateways",
}
PORTS = {"vision": 50051, "decoder": 50052}
HTTP_PORTS = (8000, 8001)
OF_EACH_TIER = 2

# The vision tier in one process, where Ray is not what is tested.
WITHOUT_RAY = (sys.executable, str(Path(__file__).parents[1] / "support" / "vision_without_ray.py"))
FLAGS: Mapping[str, tuple[str, ...]] = {
    "vision": ("--threads=1", "--tower=exact"),
    "decoder": ("--threads=1", "--max-sequences=8", "--max-context=2048"),
    "gateway": ("--discover-interval-s=0.5", "--drain-notice-s=3"),
}


class Site:
    """The hosts and what runs on them; use as a context manager, which returns once all serve.

    Args:
        folder: Takes the logs.
        bundle: What is served.
        ray: Whether the vision tier runs on Ray.
        store: Whether Ray's head keeps what it knows in Redis, on the edge.

    Attributes:
        bundle: What services serve that are started from now on.
        hosts: By name.
        services: By name, which is the host's; both gateways are on the edge.
        nodes: Those of Ray's cluster, by host.
        client: The host of whoever asks.
        gateways: URLs of the HTTP doors.
        authority: PEM file of who signed their certificates.
    """

    def __init__(self, folder: Path, bundle: Path, *, ray: bool, store: bool = False) -> None:
        self._network = Network(folder)
        self._secrets = folder / "secrets"
        self.bundle = bundle
        self.ray, self._store = ray, store
        self.authority = self._secrets / "authority.pem"
        self.hosts: dict[str, Host] = {}
        self.services: dict[str, Service] = {}
        self.nodes: dict[Host, Service] = {}

    def __enter__(self) -> Self:
        self._network.__enter__()
        try:
            self._build()
        except BaseException:
            self._network.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._network.__exit__()

    def of_tier(self, tier: str) -> list[Service]:
        """The services of a tier."""
        return [service for name, service in self.services.items() if name.startswith(tier)]

    @property
    def vision_hosts(self) -> list[Host]:
        """Where images are encoded."""
        return [service.host for service in self.of_tier("vision")]

    def on(self, host: Host) -> list[Service]:
        """The services of a host."""
        return [service for service in self.services.values() if service.host is host]

    def addresses(self, tier: str) -> list[str]:
        """Where the services of a tier are reached."""
        return [f"{service.host.address}:{PORTS[tier]}" for service in self.of_tier(tier)]

    def gateway_url(self, service: Service) -> str:
        """The HTTP door of a gateway."""
        return self.gateways[self.of_tier("gateway").index(service)]

    @contextmanager
    def crashed(self, host: Host) -> Iterator[None]:
        """A host without power while it is entered; then it boots and its services start."""
        services = self.on(host)
        host.crash()
        try:
            yield
        finally:
            host.boot()
            if host in self.nodes:
                start_all([self.nodes[host]])
            start_all(services, wait=False)

    def _build(self) -> None:
        names = [f"{tier}-{number}" for tier in PORTS for number in range(1, OF_EACH_TIER + 1)]
        for name in (*(["head"] if self.ray else []), *names, "edge"):
            self.hosts[name] = self._network.host(name)
        self.client = self._network.host("client")
        issue(self._secrets, [f"{each.name},{each.address}" for each in self.hosts.values()])
        for name in names:
            tier, _, _ = name.partition("-")
            self._add(name, self.hosts[name], tier, {"port": PORTS[tier]})
        for tier in PORTS:
            self._list(tier).write_text("".join(f"{each}\n" for each in self.addresses(tier)))
        edge = self.hosts["edge"]
        for number, port in enumerate(HTTP_PORTS, 1):
            self._add(f"gateway-{number}", edge, "gateway", {"http-port": port})
        self.gateways = [f"https://{edge.address}:{port}/v1" for port in HTTP_PORTS]
        self._start()

    def _start(self) -> None:
        """Starts what others need before them; gateways look at the tiers when they start."""
        if self.ray:
            self._add_nodes()
            for hosts in (self.hosts["head"],), self.vision_hosts:
                start_all([self.nodes[host] for host in hosts])
        for tier in ("vision", "decoder", "gateway"):
            start_all(self.of_tier(tier), wait=tier != "vision")
        for service in self.of_tier("vision"):
            service.wait_until_serving()

    def _add_nodes(self) -> None:
        head = self.hosts["head"]
        variables = self._ray_environment(head)
        if self._store:
            start_all([cluster.store(self.hosts["edge"])])
            variables |= cluster.kept_in(self.hosts["edge"])
        self.nodes[head] = cluster.node(head, variables)
        for host in self.vision_hosts:
            self.nodes[host] = cluster.node(host, self._ray_environment(host), head=head)

    def _ray_environment(self, host: Host) -> dict[str, str]:
        return cluster.environment(self._secrets / host.name)

    def _add(self, name: str, host: Host, tier: str, options: Mapping[str, object]) -> None:
        program = WITHOUT_RAY if tier == "vision" and not self.ray else (*TANDEM, tier)

        def command() -> list[str]:
            every = {"bundle": self.bundle, **self._options(tier, host), **options}
            return [*program, *(f"--{key}={value}" for key, value in every.items()), *FLAGS[tier]]

        self.services[name] = Service(name, host, command, self._environment(tier, host))

    def _options(self, tier: str, host: Host) -> dict[str, object]:
        own = self._secrets / host.name
        certificate, key = own / "certificate.pem", own / "key.pem"
        options: dict[str, object] = {
            "host": host.address,
            "tls-certificate": certificate,
            "tls-key": key,
            "tls-authority": own / "authority.pem",
            "token-file": own / "token",
        }
        if self.ray and tier == "vision":
            options |= {"ray-address": f"{self.hosts['head'].address}:{cluster.PORT}"}
            options |= {"replicas": OF_EACH_TIER, "replicas-per-host": 1}
        if tier == "gateway":
            options |= {"door-certificate": certificate, "door-key": key, "grpc-port": 0}
            options |= {each: f"file:{self._list(each)}" for each in PORTS}
        return options

    def _environment(self, tier: str, host: Host) -> dict[str, str]:
        if tier == "gateway":
            return GATEWAY_ENVIRONMENT
        return self._ray_environment(host) if self.ray and tier == "vision" else {}

    def _list(self, tier: str) -> Path:
        return self.hosts["edge"].folder / f"{tier}.txt"


def start_all(services: list[Service], *, wait: bool = True) -> None:
    """Starts services at the same time, and waits until all serve."""
    for service in services:
        service.start()
    for service in services if wait else ():
        service.wait_until_serving()
