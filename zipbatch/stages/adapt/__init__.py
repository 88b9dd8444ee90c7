"""A trigger optimised through a purifier."""
