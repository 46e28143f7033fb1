"""How fast the hub is, beside what people would pick instead: `make bench`."""
