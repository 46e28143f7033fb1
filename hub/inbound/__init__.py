"""Responses of services: messages of response queues and webhook calls, stored and turned into events."""
