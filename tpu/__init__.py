"""TPU and GPU pods: the slices that exist, compilation ahead of time, and launch files; run from a checkout."""
