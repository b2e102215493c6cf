"""What crosses a wire: tensors, errors, channels."""
