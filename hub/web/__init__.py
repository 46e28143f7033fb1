"""HTTP: the API, inbound webhooks and the console. The only package that imports FastAPI."""
