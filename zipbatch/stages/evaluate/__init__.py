"""Measure victims on shards as they came and purified."""
