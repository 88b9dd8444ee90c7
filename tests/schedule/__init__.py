"""The wrappers in pipelines/schedule, each held against its own validator."""
