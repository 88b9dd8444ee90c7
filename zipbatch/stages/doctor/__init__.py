"""Is this machine, its store and its cluster fit for the work?"""
