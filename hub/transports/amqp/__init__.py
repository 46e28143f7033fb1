"""AMQP 0-9-1: publishing with confirms, and reading response queues."""
