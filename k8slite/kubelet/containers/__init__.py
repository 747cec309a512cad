"""From a container of a specification to one that runs, and to its end."""
