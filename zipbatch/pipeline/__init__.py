"""Stages chained over a matrix of cases, from one YAML file; each is skipped when it is up to date."""
