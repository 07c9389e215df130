"""The four ways to change an object without sending it whole: JSON patch, merge patch, strategic merge, apply.

All are pure: inputs are never changed. A result may share with the document what the patch left alone, so write into
nothing but its top level; it shares nothing with the patch.
"""

from hotvirt.server.patches.json import json_patch
from hotvirt.server.patches.merge import merge_patch
from hotvirt.server.patches.strategic import strategic_merge

__all__ = ["json_patch", "merge_patch", "strategic_merge"]
