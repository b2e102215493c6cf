"""What products are given in the exporter's pass over sample images, against `model.visual`."""

from typing import Any

import numpy as np
import pytest
import torch

from deploy.export.vision.sample_pass import SamplePass
from deploy.export.vision.samples import SampleShape, samples
from deploy.export.vision.tower_graph import TowerConfig
from protos.media.grid_inputs import GridSettings
from tests.support import bundles
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import oracle

TOLERANCE = 1e-5  # of a product's largest input


@pytest.mark.parametrize("name", NAMES)
def test_every_product_is_given_what_it_is_given_in_transformers(name: str) -> None:
    reference = oracle(bundles.checkpoint(name))
    tower = reference.model.model.visual
    config, tensors = tower.config.to_dict(), tower.state_dict()
    images = samples(SampleShape.from_config(config), 60, 0)
    shapes = TowerConfig.from_config(config)
    made = SamplePass(tensors.__getitem__, shapes, GridSettings.from_config(config), images)
    wanted: dict[str, torch.Tensor] = {}

    def keep(key: str) -> Any:
        return lambda _, inputs: wanted.update({key: inputs[0].detach().float().clone()})

    products = [key for key in shapes.products if "merger" not in key]
    modules = dict(tower.named_modules())
    hooks = [modules[key].register_forward_pre_hook(keep(key)) for key in products]
    grids = np.array([image.grid for image in images])
    reference.features(np.concatenate([image.patches for image in images]), grids)
    for hook in hooks:
        hook.remove()
    seen = []
    for key, inputs in made.products():
        seen.append(key)
        theirs = wanted[key].reshape(inputs.shape)
        assert (inputs - theirs).abs().max() <= TOLERANCE * theirs.abs().max(), key
    assert seen == products
