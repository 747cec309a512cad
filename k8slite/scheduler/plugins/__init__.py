"""The plugins, one idea a file, and the tables that say which run."""
