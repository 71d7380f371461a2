"""Where checkpoints come from: a folder, or the Hugging Face Hub.

Both end as a folder in the Hub's layout with a name and a revision that a manifest can remember.
"""

from msport.hub.resolve import resolve
from msport.hub.source import Source

__all__ = ["Source", "resolve"]
