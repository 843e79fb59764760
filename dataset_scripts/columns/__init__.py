"""Which columns a dataset of posts has, and copies of a dataset with its pictures taken away or exchanged."""
