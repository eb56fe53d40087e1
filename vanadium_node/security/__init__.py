"""The security model as values and decisions: no I/O, no clock, no randomness but that of new keys."""
