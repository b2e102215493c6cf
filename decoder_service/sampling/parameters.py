"""How the tokens of one sequence are chosen."""

from dataclasses import dataclass, field

from protos.wire.sampling import PARAMETERS


def _default(name: str) -> float:
    value = PARAMETERS[name].default
    assert value is not None, "only a seed has no default"
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen; meanings are those of decoder.proto, ranges and defaults the table's.

    `logit_bias` holds (token id, bias).
    """

    temperature: float = _default("temperature")
    top_p: float = _default("top_p")
    top_k: int = int(_default("top_k"))
    min_p: float = _default("min_p")
    seed: int | None = None
    repetition_penalty: float = _default("repetition_penalty")
    presence_penalty: float = _default("presence_penalty")
    frequency_penalty: float = _default("frequency_penalty")
    logit_bias: tuple[tuple[int, float], ...] = field(default=())

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature == 0

    @property
    def has_penalties(self) -> bool:
        """Whether tokens seen before are judged differently."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )
