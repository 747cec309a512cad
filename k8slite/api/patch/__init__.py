"""Changes to an object: JSON patch, merge patch, strategic merge patch. All leave their input
alone.
"""

from k8slite.api.patch.json_patch import TestFailed as TestFailed
from k8slite.api.patch.json_patch import json_patch as json_patch
from k8slite.api.patch.merge_patch import create_merge_patch as create_merge_patch
from k8slite.api.patch.merge_patch import merge_patch as merge_patch
from k8slite.api.patch.strategic import strategic_merge_patch as strategic_merge_patch

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
