"""What services send back: messages from response queues and webhook calls, stored and turned into events."""
