"""Files and datasets -> checked posts, or one clear error."""
