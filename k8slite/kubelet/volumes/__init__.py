"""The volumes of pods: what they hold, where they lie, who mounts them."""
