"""What the doors for single answers share: a body in, an answer out, in each API's words."""
