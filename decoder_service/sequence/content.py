"""What KV was computed from, and how far that is what another prompt begins with."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from decoder_service.sequence.request import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """All that KV depends on, besides the model; L tokens.

    Attributes:
        token_ids: int32 [L].
        position_ids: int32 [3, L].
        spans: Images, those that begin behind the last token included. None has an empty
            digest: equal digests mean equal features.
        salt: Only contents of the same salt are compared.
    """

    token_ids: npt.NDArray[np.int32]
    position_ids: npt.NDArray[np.int32]
    spans: tuple[Span, ...] = ()
    salt: bytes = b""

    @property
    def length(self) -> int:
        """L."""
        return len(self.token_ids)

    def first(self, length: int) -> Self:
        """Its first tokens, as a copy: nothing of the rest is held."""
        return replace(
            self,
            token_ids=self.token_ids[:length].copy(),
            position_ids=self.position_ids[:, :length].copy(),
            spans=tuple(span for span in self.spans if span.offset < length),
        )


def common_prefix(one: Content, other: Content) -> int:
    """How many leading tokens have the same KV in both.

    Token ids and all three axes of the positions must agree. An image counts as far as it is
    the same one in the same place; where two differ, the prefix ends before both. It may end
    inside an image, when one content holds only a part of it.
    """
    limit = min(one.length, other.length)
    if one.salt != other.salt or limit == 0 or one.token_ids[0] != other.token_ids[0]:
        return 0
    same = one.token_ids[:limit] == other.token_ids[:limit]
    same &= (one.position_ids[:, :limit] == other.position_ids[:, :limit]).all(axis=0)
    length = limit if same.all() else int(same.argmin())
    if one.spans != other.spans:
        for span in {*one.spans} ^ {*other.spans}:
            length = min(length, span.offset)
    return length
