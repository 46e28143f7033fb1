"""Dramatiq: brokers, actors, middleware, enqueueing and the outbox relay."""
