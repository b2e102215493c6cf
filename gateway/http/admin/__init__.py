"""What an operator does with a running gateway, on a port of its own."""
