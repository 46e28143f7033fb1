"""Transports for REST, AMQP, SOAP and SMTP; `base` has their protocol."""
