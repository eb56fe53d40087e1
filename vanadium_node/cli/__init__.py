"""The command line: each module turns arguments into one call of a floor below and shows its result."""
