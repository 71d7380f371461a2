"""Where checkpoints come from: a folder, the Hugging Face Hub, or ModelScope.

``resolve`` turns what the user named into a ``Source``: a folder in the Hub's layout with a name and a revision for the
manifest. ``huggingface`` and ``modelscope`` get the ``listing`` of a model's files. Then either ``local_files``
downloads them, or ``streaming`` reads the weights over the network during the conversion and never stores them.

Both fetch through ``transport``: it goes only to an ``address`` that every library reads alike, checks each
``response``, and retries within ``limits``. ``read_ahead`` makes few requests of many small reads.
"""

from msport.hub.limits import Network
from msport.hub.resolve import DEFAULT_HUB, HUBS, find_reference, resolve
from msport.hub.source import AnyCheckpoint, Source

__all__ = ["DEFAULT_HUB", "HUBS", "AnyCheckpoint", "Network", "Source", "find_reference", "resolve"]
