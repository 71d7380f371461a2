"""The benchmarks run, and say what they promise to say; their figures are not tested."""
