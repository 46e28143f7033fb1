"""What people and their programs touch: the HTTP API, inbound webhooks and the console. Only here is FastAPI."""
