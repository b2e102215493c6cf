"""What this machine has, what a bundle needs of it, and the speed to expect."""
