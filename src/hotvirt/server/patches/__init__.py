"""The four ways to change an object without sending it whole: JSON patch, merge patch, strategic merge, apply.

All are pure: inputs are never changed, and a result shares nothing with them, so the caller may write into it.
"""

from hotvirt.server.patches.json import json_patch
from hotvirt.server.patches.merge import merge_patch
from hotvirt.server.patches.strategic import strategic_merge

__all__ = ["json_patch", "merge_patch", "strategic_merge"]
