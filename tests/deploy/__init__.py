"""Deployment files, held against the real tools where the registries have them."""
