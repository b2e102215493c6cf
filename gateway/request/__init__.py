"""What is asked: conversation, job, constraint, deadline."""
