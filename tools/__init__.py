"""What tests, benchmarks and sheets work with: a notebook's kernel, JupyterLab, and Chromium."""
