"""The command line: one file per command, and the only place that reads the environment or prints."""
