"""Where checkpoints come from: a folder, the Hugging Face Hub, or ModelScope.

Each becomes a folder in the Hub's layout with a name and a revision for the manifest. The weights are in the folder, or
are streamed: read over the network during the conversion and never stored on disk.
"""

from msport.hub.network import Network
from msport.hub.resolve import DEFAULT_HUB, HUBS, resolve
from msport.hub.source import AnyCheckpoint, Source

__all__ = ["DEFAULT_HUB", "HUBS", "AnyCheckpoint", "Network", "Source", "resolve"]
