"""Tables and pictures of trained models."""
