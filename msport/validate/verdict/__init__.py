"""The decision: the rules, and the limits of errors."""
