"""The stages behind the commands: plan, process one shard, publish."""
