"""Configuration as people write it: definitions of services and rules, the YAML file, documents."""
