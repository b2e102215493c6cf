"""A forward pass for training: the same arithmetic as transformers, for batches of one size.

transformers loops over pictures inside every layer of the tower and re-derives positions on
every call, which is most of the time of a model this small. Here all pictures of a batch share
one grid, weights are cast to bfloat16 once per step, and the parameters stay those of the
transformers model. `tests/parity/test_demo_model.py` holds the two towers against each other.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLVisionModel

PATCH = 16
MERGE = 2
NORM_EPS = 1e-6  # of the tower


class Features(NamedTuple):
    """What the tower sees, per batch of pictures."""

    patches: Tensor  # [B, P, hidden] after the last layer, in merge order
    merged: Tensor  # [B, P / 4, out]
    deepstack: list[Tensor]  # one [B, P / 4, out] per level


def linear(layer: nn.Linear, x: Tensor, block: int | None = None) -> Tensor:
    """A linear layer in the precision of its input; see `four_bits` for `block`."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, four_bits(layer.weight, block).to(x.dtype), bias)


def four_bits(weight: Tensor, block: int | None) -> Tensor:
    """Weights as INT4 blocks of that many would hold them; the gradient passes straight through.

    Without a block the weights stay as they are.
    """
    if block is None:
        return weight
    with torch.no_grad():
        columns = weight.shape[1]
        padded = F.pad(weight, (0, -columns % block))
        blocks = unflatten(padded, 1, (-1, block))
        largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
        scale = torch.where(largest == 0, 1.0, largest / -8)
        rounded = (blocks / scale).round_().clamp_(-8, 7).mul_(scale)
        change = rounded.flatten(1)[:, :columns] - weight
    return weight + change


def layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalisation in the precision of its input."""
    return F.layer_norm(
        x, layer.normalized_shape, layer.weight.to(x.dtype), layer.bias.to(x.dtype), layer.eps
    )


def rms_norm(weight: Tensor, x: Tensor, eps: float) -> Tensor:
    """Root-mean-square normalisation in the precision of its input."""
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)


def unflatten(x: Tensor, axis: int, sizes: tuple[int, ...]) -> Tensor:
    """One axis becomes several; torch's own method has no types."""
    return x.unflatten(axis, sizes)  # type: ignore[no-untyped-call,no-any-return]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, halves convention."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Plain attention; for rows this short it beats the fused kernel several times over."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    out: Tensor = scores.softmax(-1) @ v
    return out


def to_patches(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Patches [B, P, 2 * 3 * 256] or [B, P, 3 * 256], in merge order.

    Args:
        pixels: uint8, [B, H, W, 3] for stills or [B, 2, H, W, 3] for pairs of video frames.
    """
    still = pixels.ndim == 4
    if still:
        pixels = pixels[:, None]
    batch, frames, height, width, _ = pixels.shape
    rows, columns = height // (PATCH * MERGE), width // (PATCH * MERGE)
    x = pixels.view(batch, frames, rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    x = x.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    x = x.reshape(batch, rows * columns * MERGE * MERGE, 3 * frames * PATCH * PATCH)
    return x.to(dtype) * (1 / 127.5) - 1


def merge_order(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch, in merge order, for a grid in patches."""
    row = torch.arange(rows).view(rows // MERGE, 1, MERGE, 1)
    column = torch.arange(columns).view(1, columns // MERGE, 1, MERGE)
    shape = (rows // MERGE, columns // MERGE, MERGE, MERGE)
    return row.expand(shape).flatten(), column.expand(shape).flatten()


@lru_cache(maxsize=256)
def interpolation(rows: int, columns: int, side: int) -> Tensor:
    """Weights [P, side * side] that interpolate the learned position table bilinearly."""

    def axis(count: int) -> Tensor:
        at = torch.linspace(0, side - 1, count)
        low = at.floor().long()
        high = (low + 1).clamp(max=side - 1)
        weight = torch.zeros(count, side)
        weight[torch.arange(count), low] += 1 - (at - low)
        weight[torch.arange(count), high] += at - low
        return weight

    row, column = merge_order(rows, columns)
    return (axis(rows)[row][:, :, None] * axis(columns)[column][:, None, :]).flatten(1)


@lru_cache(maxsize=256)
def vision_rotation(rows: int, columns: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [P, head_dim] of the tower's two-axis rotary embedding."""
    inverse = 1 / 10000 ** (torch.arange(0, head_dim // 2, 2).float() / (head_dim // 2))
    row, column = merge_order(rows, columns)
    angles = torch.cat((row[:, None] * inverse, column[:, None] * inverse), dim=-1)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def see(tower: "Qwen3VLVisionModel", pixels: Tensor, dtype: torch.dtype) -> Features:
    """Runs the tower on pictures of one size.

    Args:
        pixels: uint8, [B, H, W, 3] for stills or [B, 2, H, W, 3] for pairs of video frames,
            sides divisible by 32.
    """
    config = tower.config
    rows, columns = pixels.shape[-3] // PATCH, pixels.shape[-2] // PATCH
    weight = tower.patch_embed.proj.weight
    if pixels.ndim == 4:  # both halves of the temporal pair see the same picture
        weight = weight.sum(2)
    x = to_patches(pixels, dtype)
    x = F.linear(x, weight.flatten(1).to(dtype), tower.patch_embed.proj.bias.to(dtype))
    side = int(config.num_position_embeddings**0.5)
    x = x + (interpolation(rows, columns, side) @ tower.pos_embed.weight).to(dtype)
    head_dim = config.hidden_size // config.num_heads
    cos, sin = (t.to(dtype) for t in vision_rotation(rows, columns, head_dim))
    deepstack = []
    for index, block in enumerate(tower.blocks):
        x = vision_layer(x, vision_weights(block, dtype), cos, sin)
        if index in config.deepstack_visual_indexes:
            level = config.deepstack_visual_indexes.index(index)
            deepstack.append(merge(tower.deepstack_merger_list[level], x))
    return Features(x, merge(tower.merger, x), deepstack)


def vision_weights(block: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A block's weights and biases as `vision_layer` takes them."""
    attention, mlp = block.attn, block.mlp
    parts = (block.norm1, attention.qkv, attention.proj, block.norm2, mlp.linear_fc1)
    return tuple(t.to(dtype) for part in (*parts, mlp.linear_fc2) for t in (part.weight, part.bias))


def vision_layer(x: Tensor, weights: tuple[Tensor, ...], cos: Tensor, sin: Tensor) -> Tensor:
    """One block of the tower, [B, P, hidden]."""
    norm1, norm1_b, qkv, qkv_b, proj, proj_b, norm2, norm2_b, up, up_b, down, down_b = weights
    width, head_dim = x.shape[-1], cos.shape[-1]
    y = F.layer_norm(x, (width,), norm1, norm1_b, NORM_EPS)
    y = unflatten(F.linear(y, qkv, qkv_b), -1, (3, width // head_dim, head_dim))
    q, k, v = y.permute(2, 0, 3, 1, 4).unbind(0)
    y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
    x = x + F.linear(y.transpose(1, 2).flatten(2), proj, proj_b)
    y = F.layer_norm(x, (width,), norm2, norm2_b, NORM_EPS)
    return x + F.linear(F.gelu(F.linear(y, up, up_b), approximate="tanh"), down, down_b)


def merge(merger: Any, x: Tensor) -> Tensor:
    """Groups of four patches become one token."""
    if merger.use_postshuffle_norm:
        x = layer_norm(merger.norm, unflatten(x, 1, (-1, MERGE * MERGE)).flatten(2))
    else:
        x = unflatten(layer_norm(merger.norm, x), 1, (-1, MERGE * MERGE)).flatten(2)
    return linear(merger.linear_fc2, F.gelu(linear(merger.linear_fc1, x)))


class Batch(NamedTuple):
    """Conversations about one sight each: a shared prefix, then independent continuations.

    All rows have one layout, so one set of positions serves them all. Continuations see the
    prefix and themselves, never each other: each is a conversation of its own.
    """

    prefix: Tensor  # [B, P] tokens up to and including the last visual token's wrapper
    positions: Tensor  # [3, P]
    visual: Tensor  # [V] columns of the prefix that hold visual tokens, in order
    suffix: Tensor  # [B * G, L] tokens of G continuations per row, padded on the right
    start: int  # first position of every continuation


def text_rotation(
    model: "Qwen3VLForConditionalGeneration", positions: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [S, head_dim] for MRoPE positions [3, S]."""
    rotary = model.model.language_model.rotary_emb
    cos, sin = rotary(torch.empty(0, dtype=dtype), positions[:, None])
    return cos[0], sin[0]


def causal_bias(length: int, seen: int, dtype: torch.dtype) -> Tensor:
    """Zero where a query may look, very negative elsewhere; `seen` keys precede the first."""
    blocked = torch.ones(length, seen + length, dtype=torch.bool).triu(seen + 1)
    return torch.zeros(length, seen + length, dtype=dtype).masked_fill(blocked, -30000.0)


def think(
    model: "Qwen3VLForConditionalGeneration",
    batch: Batch,
    merged: Tensor,
    deepstack: list[Tensor],
    dtype: torch.dtype,
    block: int | None = None,
) -> Tensor:
    """Runs the language model; the last hidden states of the continuations [B * G * L, hidden].

    Args:
        merged: [B, V, hidden], in the order of `batch.visual`.
        deepstack: one such tensor per level.
        block: weights of the linear layers that share a 4-bit scale, if they are to be rounded.
    """
    text = model.model.language_model
    rows, length = batch.prefix.shape
    lines, reach = batch.suffix.shape
    columns = (torch.arange(rows)[:, None] * length + batch.visual).flatten()
    after = batch.start + torch.arange(reach)
    rotations = (
        text_rotation(model, batch.positions, dtype),
        text_rotation(model, after.expand(3, -1), dtype),
    )
    biases = (causal_bias(length, 0, dtype), causal_bias(reach, length, dtype))
    tokens = torch.cat((batch.prefix.flatten(), batch.suffix.flatten()))
    x = F.embedding(tokens, text.embed_tokens.weight.to(dtype))
    x = x.index_copy(0, columns, merged.flatten(0, 1))
    eps = text.config.rms_norm_eps
    for index, layer in enumerate(text.layers):
        weights = text_weights(layer, dtype, block)
        x = text_layer(x, weights, rotations, biases, rows, lines, eps)
        if index < len(deepstack):
            x = x.index_add(0, columns, deepstack[index].flatten(0, 1))
    return rms_norm(text.norm.weight, x[rows * length :], eps)


def text_weights(layer: Any, dtype: torch.dtype, block: int | None) -> tuple[Tensor, ...]:
    """A layer's weights as `text_layer` takes them: norms first, then matrices."""
    attention, mlp = layer.self_attn, layer.mlp
    norms = (
        layer.input_layernorm,
        attention.q_norm,
        attention.k_norm,
        layer.post_attention_layernorm,
    )
    matrices = (
        attention.q_proj,
        attention.k_proj,
        attention.v_proj,
        attention.o_proj,
        mlp.gate_proj,
        mlp.up_proj,
        mlp.down_proj,
    )
    return (
        *(norm.weight.to(dtype) for norm in norms),
        *(four_bits(m.weight, block).to(dtype) for m in matrices),
    )


def text_layer(
    x: Tensor,
    weights: tuple[Tensor, ...],
    rotations: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    biases: tuple[Tensor, Tensor],
    rows: int,
    lines: int,
    eps: float,
) -> Tensor:
    """One decoder layer over prefixes and continuations, [N, hidden]."""
    before, q_norm, k_norm, after, q_proj, k_proj, v_proj, o_proj, gate, up, down = weights
    length, reach = biases[0].shape[0], biases[1].shape[0]
    head_dim = q_norm.shape[0]
    y = rms_norm(before, x, eps)
    q, k, v = (unflatten(F.linear(y, w), -1, (-1, head_dim)) for w in (q_proj, k_proj, v_proj))
    heads = (rms_norm(q_norm, q, eps), rms_norm(k_norm, k, eps), v)
    cut = rows * length
    early = [unflatten(t[:cut], 0, (rows, length)).transpose(1, 2) for t in heads]
    late = [unflatten(t[cut:], 0, (lines, reach)).transpose(1, 2) for t in heads]
    early[:2] = [rotate(t, *rotations[0]) for t in early[:2]]
    late[:2] = [rotate(t, *rotations[1]) for t in late[:2]]
    keys, values = (
        torch.cat((a.repeat_interleave(lines // rows, 0), b), dim=2)
        for a, b in zip(early[1:], late[1:], strict=True)
    )
    outputs = (
        grouped_attention(early[0], early[1], early[2], biases[0]),
        grouped_attention(late[0], keys, values, biases[1]),
    )
    x = x + F.linear(torch.cat(outputs), o_proj)
    y = rms_norm(after, x, eps)
    return x + F.linear(F.silu(F.linear(y, gate)) * F.linear(y, up), down)


def grouped_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention whose key heads serve several query heads; [rows * length, width]."""
    share = q.shape[1] // k.shape[1]
    rows, _, length, _ = q.shape
    q = unflatten(q, 1, (-1, share)).flatten(2, 3)  # share is folded into the length
    out = attend(q, k, v, bias.repeat(share, 1))
    out = unflatten(out, 2, (share, length)).permute(0, 3, 1, 2, 4)
    return out.reshape(rows * length, -1)
