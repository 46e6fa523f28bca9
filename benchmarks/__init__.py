"""Reproducible benchmarks, such as `make bench-model` and `make bench`; see README.md here."""
