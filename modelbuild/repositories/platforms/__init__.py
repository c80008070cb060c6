"""The repository `@platforms`."""
