"""Stage 9: REST, AMQP and SOAP behind one seam, see `base`."""
