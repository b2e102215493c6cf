"""The reference: transformers' own model and processor, in float32, on the same checkpoint."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tests.support import torchvision_schemas

torchvision_schemas.install()
from transformers import AutoProcessor, Qwen3VLForConditionalGeneration  # noqa: E402

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A conversation as the model takes it; S prompt length, P patches, I images."""

    text: str  # the rendered chat template
    input_ids: Int64Array  # [S], placeholders expanded
    mm_token_type_ids: Int64Array  # [S], 0 text, 1 image
    pixel_values: Float32Array | None  # [P, patch_dim]
    image_grid_thw: Int64Array | None  # [I, 3]
    position_ids: Int64Array  # [3, S]
    delta: int  # decode position = sequence length + delta


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the vision tower gives for all patches together; N placeholders."""

    embeddings: Float32Array  # [N, hidden]
    deepstack: tuple[Float32Array, ...]  # one [N, hidden] per level


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """Greedy tokens and the logits each was taken from."""

    token_ids: tuple[int, ...]
    logits: Float32Array  # [tokens, vocab]


class Oracle:
    """transformers' model and processor of one checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)  # tiny products only lose time to a second thread
        self.checkpoint = checkpoint
        self.model: Any = Qwen3VLForConditionalGeneration.from_pretrained(
            checkpoint, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.processor: Any = AutoProcessor.from_pretrained(checkpoint)

    def prepare(
        self,
        messages: Sequence[Mapping[str, Any]],
        images: Sequence[Any] = (),
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template: Any,
    ) -> Prepared:
        """Runs the chat template and the processor.

        Args:
            messages: The conversation, in the template's form.
            images: PIL images, in prompt order.
            tools: Tool definitions.
            add_generation_prompt: Open the assistant's turn at the end.
            template: Further template variables, such as add_vision_id.
        """
        text = self.processor.apply_chat_template(
            list(messages),
            tools=tools,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **template,
        )
        return self.prepare_text(text, images)

    def prepare_text(self, text: str, images: Sequence[Any] = ()) -> Prepared:
        """Runs the processor on a text that the template has rendered already."""
        inputs = self.processor(text=[text], images=list(images) or None, return_tensors="pt")
        kinds = inputs["mm_token_type_ids"]
        grid = inputs.get("image_grid_thw")
        positions, delta = self.model.model.get_rope_index(
            inputs["input_ids"], kinds, image_grid_thw=grid
        )
        pixels = inputs.get("pixel_values")
        return Prepared(
            text=text,
            input_ids=inputs["input_ids"][0].numpy(),
            mm_token_type_ids=kinds[0].numpy().astype(np.int64),
            pixel_values=None if pixels is None else pixels.numpy(),
            image_grid_thw=None if grid is None else grid.numpy(),
            position_ids=positions[:, 0].numpy(),
            delta=int(delta.flatten()[0]),
        )

    @torch.no_grad()
    def features(self, pixel_values: Float32Array, grid: Int64Array) -> Features:
        """Runs the vision tower on all images together."""
        output = self.model.model.visual(
            torch.from_numpy(pixel_values), grid_thw=torch.from_numpy(grid), return_dict=True
        )
        return Features(
            embeddings=output.pooler_output.numpy(),
            deepstack=tuple(level.numpy() for level in output.deepstack_features),
        )

    @torch.no_grad()
    def logits(
        self,
        prepared: Prepared,
        *,
        position_ids: Int64Array | None = None,
        without_deepstack: bool = False,
        without_levels: Sequence[int] = (),
    ) -> Float32Array:
        """Logits of every prompt token, [S, vocab].

        Args:
            prepared: The prompt.
            position_ids: Other positions than the prompt's own, [3, S].
            without_deepstack: Leave all DeepStack features out, to see what they change.
            without_levels: Leave these levels out.
        """
        ids = torch.from_numpy(prepared.input_ids)[None]
        embeds = self.model.get_input_embeddings()(ids)
        visual: dict[str, Any] = {}
        if prepared.pixel_values is not None and prepared.image_grid_thw is not None:
            features = self.features(prepared.pixel_values, prepared.image_grid_thw)
            mask = torch.from_numpy(prepared.mm_token_type_ids != 0)[None]
            embeds = embeds.clone()
            embeds[mask] = torch.from_numpy(features.embeddings)
            if not without_deepstack:
                visual["visual_pos_masks"] = mask
                visual["deepstack_visual_embeds"] = [
                    torch.from_numpy(level * (index not in without_levels))
                    for index, level in enumerate(features.deepstack)
                ]
        positions = torch.from_numpy(
            prepared.position_ids if position_ids is None else position_ids
        )
        hidden = self.model.model.language_model(
            inputs_embeds=embeds, position_ids=positions[:, None], use_cache=False, **visual
        ).last_hidden_state
        result: Float32Array = self.model.lm_head(hidden)[0].numpy()
        return result

    @torch.no_grad()
    def greedy(self, prepared: Prepared, tokens: int) -> Greedy:
        """Takes exactly `tokens` greedy tokens through the whole model; no token ends it early."""
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(prepared.input_ids)[None]}
        if prepared.pixel_values is not None and prepared.image_grid_thw is not None:
            inputs["pixel_values"] = torch.from_numpy(prepared.pixel_values)
            inputs["image_grid_thw"] = torch.from_numpy(prepared.image_grid_thw)
        length = len(prepared.input_ids)
        positions = torch.from_numpy(prepared.position_ids)[:, None]
        rows, ids, past = [], [], None
        for step in range(tokens):
            output = self.model(
                **inputs, position_ids=positions, past_key_values=past, logits_to_keep=1
            )
            past = output.past_key_values
            rows.append(output.logits[0, -1].numpy())
            ids.append(int(rows[-1].argmax()))
            inputs = {"input_ids": torch.tensor([[ids[-1]]])}
            positions = torch.full((3, 1, 1), length + step + prepared.delta)
        return Greedy(token_ids=tuple(ids), logits=np.stack(rows))


@functools.cache
def oracle(checkpoint: Path) -> Oracle:
    """The oracle of a checkpoint, loaded once per process."""
    return Oracle(checkpoint)
