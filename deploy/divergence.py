"""How far two models' next-token distributions lie apart."""

import numpy as np
import numpy.typing as npt


def kl_divergence(
    reference: npt.NDArray[np.float32], found: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """KL(reference || found) of every row of logits, float64 [...] in nats.

    Args:
        reference: Logits [..., vocab].
        found: Logits of the same shape.
    """
    p, q = _log_softmax(reference), _log_softmax(found)
    result: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=-1)
    return result


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
