"""`tandem render`: a kind, a bundle, and the settings of the fronts."""

from pathlib import Path

import pytest
import yaml

from protos.bundle.manifest import Bundle, BundleError
from protos.process.settings import SettingError
from tests.support.manifests import small_manifest
from vision_service.manifests.__main__ import rendered


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    (tmp_path / "tandem.json").write_text(small_manifest().to_json())
    return f"--bundle={tmp_path}"


def test_the_digest_is_that_of_the_bundle_here(bundle: str) -> None:
    written = yaml.safe_load(rendered("serve", [bundle, "--threads=4"], {"VISION_REPLICAS": "3"}))
    args = written["applications"][0]["args"]
    assert args["digest"] == Bundle.open(bundle.partition("=")[2]).digest
    assert args["settings"]["replicas"] == 3


def test_a_manifest_for_kuberay_needs_what_kubernetes_has(bundle: str) -> None:
    with pytest.raises(SettingError, match="image"):
        rendered("kuberay", [bundle, "--threads=4"], {})
    text = rendered("kuberay", [bundle, "--threads=4", "--image=x", "--claim=y"], {})
    kinds = [document["kind"] for document in yaml.safe_load_all(text)]
    assert kinds == ["RayService", "Service"]
    assert "&id" not in text


def test_another_kind_and_a_bundle_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="helm"):
        rendered("helm", [], {})
    with pytest.raises(BundleError, match="not a folder"):
        rendered("serve", [f"--bundle={tmp_path / 'none'}"], {})
