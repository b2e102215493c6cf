"""The shared application as files: for `serve deploy`, and for KubeRay."""
