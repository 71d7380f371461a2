"""What passes: the rules, the tolerances, and the sentences that say why."""
