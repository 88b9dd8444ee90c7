"""How fast this machine purifies, beside how fast it could, and what that makes of a run to come."""
