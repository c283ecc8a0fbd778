"""Results of batches."""
