"""The decision: the rules, the tolerances, and the sentences that explain it."""
