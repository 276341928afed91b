"""Flax NNX modules: input features, rotary angle sources and the generative recommender."""
