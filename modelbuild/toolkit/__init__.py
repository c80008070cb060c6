"""What a tool program may import, in any environment, and nothing else of modelbuild."""
