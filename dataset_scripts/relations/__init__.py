"""Neighbours of posts: pictures and what is computed of them, the R-GCN authors' neighbours, the report."""
