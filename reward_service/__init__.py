"""Role 2: images in, scores out. One service scores for every rollout worker, in batches that cross workers."""
