SELECT max(before_day) FROM fer.retention
