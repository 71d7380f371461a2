"""Where checkpoints come from: a folder, the Hugging Face Hub, or ModelScope.

Each ends as a folder in the Hub's layout with a name and a revision that a manifest can remember. Its weights lie in
the folder, or are streamed: read over the network while they are converted, and never on disk.
"""

from msport.hub.network import Network
from msport.hub.resolve import DEFAULT_HUB, HUBS, resolve
from msport.hub.source import AnyCheckpoint, Source

__all__ = ["DEFAULT_HUB", "HUBS", "AnyCheckpoint", "Network", "Source", "resolve"]
