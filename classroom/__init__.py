"""A load test: a whole class on a real JupyterHub, every lesson at the same time."""
