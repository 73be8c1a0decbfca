"""Experiments: a TOML spec, a resumable run, and tidy result rows."""
