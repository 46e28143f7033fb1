"""What an attacker or an accident must not get: secrets, other hosts, other paths, forged lines."""
