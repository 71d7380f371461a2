"""How a benchmark measures: the timed loop, both engines, the processes that they run in, and the machine's own limits.

``workload`` defines what runs, and ``loop`` runs it on an engine: ``msport_engine`` or ``transformers_engine``.
``processes`` starts one process for each measurement and reads its result.
"""
