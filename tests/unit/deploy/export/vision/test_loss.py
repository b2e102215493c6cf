"""The fast form's loss, as a manifest reports it."""

from deploy.export.vision.loss import measured
from deploy.tower_loss import described
from tests.support import towers


def test_every_level_is_compared_and_told() -> None:
    config = towers.config("tied")
    tower = measured(towers.bundle("tied") / "vision", config)
    assert tower is not None
    levels = tower["levels"]
    assert len(levels) == 1 + len(config["deepstack_visual_indexes"])
    for level in levels:
        assert 0.99 < level["least"] <= level["first_percentile"] <= level["mean"] < 1
    lines = described(tower).splitlines()
    assert f"{tower['tokens']} tokens of {tower['images']} images" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["embeddings", *["deepstack"] * len(levels)][
        : len(levels)
    ]
    assert lines[1].split()[1:] == [f"{figure:.5f}" for figure in levels[0].values()]
