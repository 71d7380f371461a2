"""How a benchmark measures: the timed loop, both engines, the processes that they run in, and the machine's own limits.

``workload`` says what is run and ``loop`` runs it on any engine; ``msport_engine`` and ``transformers_engine`` are the
engines; ``processes`` starts one process for each thing measured, and reads what it returns.
"""
