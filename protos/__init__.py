"""The contract between the services: wire messages, tensors, errors, channels, bundles."""
