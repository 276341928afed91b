"""Host side: event logs, the simulated feed, leak-free counters and packed grain batches."""
