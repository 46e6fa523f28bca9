SELECT fer.ensure_partitions(:days)
