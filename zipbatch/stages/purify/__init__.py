"""Purify shards into the store: the purifier asked for, the plan, the work on one shard, publication."""
