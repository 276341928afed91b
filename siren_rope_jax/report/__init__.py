"""Tables and pictures of what was trained."""
