"""What requests cost the processors around the models: gateways, fronts, clients."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from planner.fields import PlanError, kind_of, number

# Whose processor seconds are known: what a gateway does, the vision tier beside its passes and
# files, and a client that runs on the same machine.
PROCESSES = ("gateway", "front", "client")
# Of a core, that a process like those may use. At 60 % a token waits, on average, as long as half
# a dozen others take, which is a few milliseconds.
MOST_BUSY = 0.6
# Who may share a core: those, and whoever computes the models.
SERVICES = ("replica", "decoder", *PROCESSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Processor seconds of one process.

    Attributes:
        request_s: Of a request.
        image_s: What an image adds, whatever its size.
        patch_s: What each patch of it adds.
        token_s: Of a token of the answer.
        idle: Share of a core that it takes while nobody asks.
    """

    request_s: float = 0.0
    image_s: float = 0.0
    patch_s: float = 0.0
    token_s: float = 0.0
    idle: float = 0.0

    def seconds(self, *, patches: int, tokens: int) -> float:
        """Of one request and its answer.

        Args:
            patches: Of its image; 0 without one.
            tokens: Of the answer.
        """
        image = self.image_s + self.patch_s * patches if patches else 0.0
        return self.request_s + image + self.token_s * tokens

    @classmethod
    def of(cls, name: str, given: Any) -> Self:
        """That of a file's object.

        Raises:
            PlanError: a field is unknown, or not as it should be.
        """
        if not isinstance(given, dict):
            raise PlanError(f"{name} is {kind_of(given)}, expected an object")
        _known(name, given, tuple(cls.__dataclass_fields__))
        return cls(**{field: number(f"{name}.{field}", value) for field, value in given.items()})


class CoresFor(NamedTuple):
    """How many cores processes should have, and the share of them that is used."""

    cores: int
    use: float


def cores_for(busy: float) -> CoresFor:
    """Enough cores for work of so many: each is left time in which what comes need not wait."""
    cores = math.ceil(busy / MOST_BUSY)
    return CoresFor(cores, busy / cores if cores else 0.0)


def processors_of(given: Any) -> dict[str, Processor]:
    """Those that were measured, by process; none of a file that has none.

    Raises:
        PlanError: they are written otherwise.
    """
    if not isinstance(given, dict):
        raise PlanError(f"processors is {kind_of(given)}, expected an object")
    _known("processors", given, PROCESSES)
    return {name: Processor.of(f"processors.{name}", value) for name, value in given.items()}


def cores_of(given: Any, processors: Mapping[str, Processor]) -> tuple[tuple[str, ...], ...]:
    """Who shares a core with whom; whoever is not named has cores of his own.

    Raises:
        PlanError: a service is unknown or on two cores, or a core has no time left.
    """
    if not isinstance(given, list):
        raise PlanError(f"cores is {kind_of(given)}, expected a list")
    named = set[str]()
    for index, core in enumerate(given):
        where = f"cores[{index}]"
        if not isinstance(core, list):
            raise PlanError(f"{where} is {kind_of(core)}, expected a list of services")
        for name in core:
            if name not in SERVICES:
                raise PlanError(f"{where} has {kind_of(name)}, expected {', '.join(SERVICES)}")
            if name in named:
                raise PlanError(f"{where} has {name} once more, expected it on one core")
            named.add(name)
        idle = sum(processors[name].idle for name in core if name in processors)
        number(f"idle of all on {where}", idle, most=0.9)
    return tuple(tuple(core) for core in given)


def _known(where: str, given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in given:
        if name not in names:
            raise PlanError(f"{where} has {name}, expected some of {', '.join(names)}")
