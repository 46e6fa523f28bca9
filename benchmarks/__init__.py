"""Measurements that anybody can repeat: `make bench-model`, `make bench`. See README.md here."""
