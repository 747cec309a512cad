"""Server-side apply: fields have owners, and who applies says all that they want."""

from k8slite.api.apply.configurations import merge_configuration as merge_configuration
from k8slite.api.apply.ownership import server_side_apply as server_side_apply
from k8slite.api.apply.ownership import track_update as track_update
