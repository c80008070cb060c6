"""Plain NumPy as a runtime for modelbuild. BUILD files find it as `@modelbuild_numpy`."""
