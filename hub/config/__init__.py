"""Configuration: definitions of services, sources and rules, the YAML file, documents."""
