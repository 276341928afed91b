"""Training: configuration, loss, metrics, sharding, checkpoints, the loop, evaluation and scoring."""
