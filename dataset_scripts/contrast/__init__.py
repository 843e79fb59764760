"""What the two sets of invented posts are made of: names and drawings."""
