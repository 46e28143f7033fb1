"""Dramatiq: the broker, the actors, the five-attempt rule, and the releaser that keeps queues filled."""
